"""A chain seen from the loop: where a part ends, what is told of it, and when to leave between two parts.

A part is done when its evaluation is told, its checkpoint is committed and was read back; its ``part`` record comes
last. What is told comes from the story alone, so that a part whose record a kill prevented is told by the next launch.
A run without parts has a `Chain` that never has anything to do.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir
from ondevice.run.part_story import PartStory, Tail
from ondevice.run.recipe import Recipe
from ondevice.run.schedule import Part, Unfolding, chained_hash, write_schedule
from ondevice.run.schema import Config
from ondevice.run.store import Store
from ondevice.run.telemetry import TelemetryWriter
from ondevice.train.chain_plan import stalled

__all__ = ["WHOLE", "Chain", "Errand"]


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What a launch of a chain is for: ``goal`` parts done in all (None: every part). ``fresh``: a person starts it, so
    that tries count from here; else it is another try."""

    goal: int | None = None
    fresh: bool = True

    @property
    def told(self) -> dict[str, Any]:
        """Its place in the ``launch`` record."""
        return {"parts_goal": self.goal, "fresh": self.fresh}


WHOLE = Errand()


class Chain:
    """The parts of one launch. ``goal``: leave when so many are done (None: go on to the end). ``ends``: the steps at
    which parts end, whose checkpoints are kept.

    ``leave`` says why to leave now, between two parts; empty where training goes on.
    """

    def __init__(
        self, run: RunDir, recipe: Recipe, telemetry: TelemetryWriter, *, config: Config, goal: int | None = None
    ) -> None:
        """The ``launch`` record is written before. Raises DataError for a story of a newer version."""
        self._run, self._recipe, self._telemetry, self._config, self._goal = run, recipe, telemetry, config, goal
        self._unfolding, self._story, self._tail = Unfolding(recipe), PartStory(), Tail(run.telemetry)
        self._store = Store(run.checkpoints)
        self._stalled = ""
        self._parts = recipe.data.parts
        planned = self._unfolding.schedule().parts
        self.ends = frozenset(part.last_step for part in planned)
        self._ends = {part.last_step: part for part in planned if part.state != "skipped" and part.planned_steps}
        self._catch_up()
        self.leave = self._why_leave()

    def is_due(self, step: int) -> bool:
        """Whether a part ends with this step of which that was not told yet."""
        part = self._ends.get(step)
        return part is not None and not self._unfolding.is_done(part.index)

    def promote(self, step: int) -> str:
        """Tells of the part that ends here, whose checkpoint was read back; gives a sentence. Raises CheckpointError
        where that checkpoint is gone."""
        self._catch_up()
        part = self._ends[step]
        schedule = self._unfolding.schedule()
        facts = self._story.facts(part.first_step, step)
        record: dict[str, Any] = {
            "index": part.index,
            "name": part.name,
            "stage": part.stage,
            "outcome": "done",
            "steps": part.planned_steps,
            "tokens": part.planned_steps * self._recipe.train.batch * self._recipe.model.context,
            "checkpoint_in": self._checkpoint(part.first_step),
            "checkpoint_out": self._checkpoint(step),
            "verified": True,
            **facts,
        }
        if (loss := self._stage_loss(part, facts.get("val_loss"))) is not None:
            record["stage_loss"] = loss
        before = next((each.results["chained"] for each in reversed(schedule.parts[: part.index]) if each.results), "")
        self._telemetry.write("part", step, **record, chained=chained_hash(before, record))
        self._catch_up()
        self.leave = self._why_leave()
        if not self.leave and (stage := stalled(self._unfolding.schedule(), self._config, step=step)):
            self._stalled, self.leave = stage, f"the validation loss of stage '{stage}' no longer falls"
        loss = facts.get("val_loss_mixed")
        return f"part {part.name} of {len(self._parts)} done" + (f": validation loss {loss:.4f}" if loss else "")

    def tell_failure(self, step: int, why: str) -> None:
        """Tells that the part at work failed."""
        part = self._unfolding.schedule().current
        if part is None:
            return
        told = {"index": part.index, "name": part.name, "stage": part.stage, "outcome": "failed", "why": why}
        self._telemetry.write("part", step, **told)
        self._catch_up()

    @property
    def told(self) -> dict[str, Any]:
        """What the status says of the chain."""
        part = self._unfolding.schedule().current
        if part is None:
            return {"part": None} if self._parts else {}
        return {"part": f"{part.name}, stage {part.stage} ({part.index + 1} of {len(self._parts)})"}

    def stalled_by(self, why: str) -> str:
        """The stage whose rest is to be left out, where that is why the launch ends; else empty."""
        return self._stalled if why == self.leave else ""

    def parting(self, why: str) -> dict[str, Any]:
        """What the ``end`` record adds where the run leaves only to go on with the next stage."""
        return {"leave": True, "until_t": None, "empty": False} if self.stalled_by(why) else {}

    def _why_leave(self) -> str:
        if self._goal is None or self._unfolding.schedule().done < self._goal:
            return ""
        return "the parts that were asked for are done"

    def _checkpoint(self, step: int) -> dict[str, Any] | None:
        """Step and hash; None where there is none, as before the first part."""
        with suppress(OndeviceError):
            return {"step": step, "sha256": self._store.peek(step).sha256}
        return None

    def _stage_loss(self, part: Part, losses: Any) -> float | None:
        """The validation loss of what the part reads, by its shares."""
        shares = {source.name: source.share for source in self._parts[part.index].sources}
        known = {name: loss for name, loss in (losses or {}).items() if name in shares and loss is not None}
        total = sum(shares[name] for name in known)
        return sum(loss * shares[name] for name, loss in known.items()) / total if total else None

    def _catch_up(self) -> None:
        """Reads what was told since, and writes the schedule where that changed it."""
        if not self._parts:
            return
        for record in self._tail.news():
            self._unfolding.see(record)
            self._story.see(record)
        with suppress(OndeviceError):  # a full disk: it is a fold, and made again
            write_schedule(self._run.path, self._unfolding.schedule())
