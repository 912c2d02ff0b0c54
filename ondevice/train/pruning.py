"""Carries out what retention decides: removes and lightens older checkpoints, after the newer ones were read back.

Used by the keeper alone, by one thread at a time. Decides nothing itself (`ondevice.run.retention` does).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ondevice.errors import CheckpointError, OndeviceError
from ondevice.run.quality import read_quality
from ondevice.run.retention import FEWEST, Decision, Policy, Scores, decide, tightest
from ondevice.run.schema import Limits
from ondevice.run.store import Store

__all__ = ["Pruned", "Pruner"]


@dataclass(kw_only=True)
class Pruned:
    """What went: steps removed, steps that lost their optimizer state; and why nothing could, where so."""

    removed: list[int] = field(default_factory=list)
    lightened: list[int] = field(default_factory=list)
    trouble: str = ""


class Pruner:
    """The retention of one launch. ``sound`` are steps whose bytes were read back and found right by this process."""

    def __init__(self, store: Store, evals: Path, *, sound: set[int], promoted: Collection[int] = ()) -> None:
        self._store, self._evals, self.sound, self._promoted = store, evals, sound, promoted

    def prune(self, *, step: int, losses: Mapping[int, float], limits: Limits) -> Pruned:
        """Takes away what the policy does not keep. ``step`` is the newest checkpoint of this life of the run.

        Later ones were damaged when the run began; they neither count nor go before they are redone.
        """
        done = Pruned()
        try:
            with self._store.changing:
                decision = self._decide(step, losses, Policy.of(limits), promoted=self._promoted)
                done.removed = self._store.prune(set(self._store.steps()) - set(decision.remove))
                done.lightened = [old for old in sorted(decision.lighten) if self._store.lighten(old)]
        except OndeviceError as error:
            done.trouble = f"No older checkpoint was removed: {error}"
        return done

    def prune_one(self, *, step: int, losses: Mapping[int, float], limits: Limits) -> Pruned:
        """Takes away the oldest that even the tightest policy does not keep; for a full disk, again and again."""
        done = Pruned()
        try:
            with self._store.changing:
                decision = self._decide(step, losses, tightest(Policy.of(limits)))
                for old in decision.remove:
                    done.removed = self._store.prune(set(self._store.steps()) - {old})
                    if done.removed:
                        return done
                for old in sorted(decision.lighten):
                    if self._store.lighten(old):
                        done.lightened = [old]
                        return done
        except OndeviceError as error:
            done.trouble = f"No older checkpoint was removed: {error}"
        return done

    def _decide(
        self, step: int, losses: Mapping[int, float], policy: Policy, promoted: Collection[int] = ()
    ) -> Decision:
        """Nothing older goes before the two that stay for sure have been read back."""
        steps = [saved for saved in self._store.steps() if saved <= step]
        complete = [saved for saved in self._store.complete_steps() if saved <= step]
        scores = Scores(losses=losses, quality=read_quality(self._evals))
        pins = self._store.pins()
        while True:
            decision = decide(steps, complete, policy=policy, pins=pins, promoted=promoted, scores=scores)
            doubtful = [saved for saved in complete[-FEWEST:] if saved not in self.sound]
            if not doubtful or not (decision.remove or decision.lighten):
                return decision
            complete = [saved for saved in complete if saved not in doubtful or self._is_sound(saved)]

    def _is_sound(self, step: int) -> bool:
        try:
            self._store.open(step)
        except CheckpointError:
            return False
        self.sound.add(step)
        return True
