"""Which checkpoints stay, which lose their optimizer state, and which go: policies as pure functions of steps.

Called by the trainer after a save; ``ondevice.run.store`` carries out what is decided. No disk, no clock. A *complete*
checkpoint can be trained from; a *light* one, without its optimizer state, can still be read and exported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ondevice.run.schema import Limits

__all__ = ["FEWEST", "Decision", "Policy", "Scores", "best_steps", "decide", "first_of_every", "newest", "tightest"]

FEWEST = 2  # complete checkpoints that stay whatever the policy: the newer one may turn out to be damaged


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What to keep, each rule on its own: a checkpoint stays if any rule wants it."""

    keep_last: int = 3
    keep_every_steps: int | None = None
    keep_best: int = 1
    keep_best_quality: int = 1
    drop_old_optimizer: bool = True

    @classmethod
    def of(cls, limits: Limits) -> Policy:
        """The policy that the limits of a run ask for."""
        return cls(**{name.name: getattr(limits, name.name) for name in dataclasses.fields(cls)})


def tightest(policy: Policy) -> Policy:
    """What even a full disk leaves: two complete ones, the best, and what is pinned."""
    return dataclasses.replace(
        policy,
        keep_last=FEWEST,
        keep_every_steps=None,
        keep_best=min(1, policy.keep_best),
        keep_best_quality=min(1, policy.keep_best_quality),
    )


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What is known of how good steps are: validation losses (lower is better), quality (higher is better)."""

    losses: Mapping[int, float] = field(default_factory=dict)
    quality: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """``keep`` and ``remove`` (oldest first) are all the steps there are; ``lighten`` are some of ``keep``."""

    keep: frozenset[int]
    lighten: frozenset[int]
    remove: tuple[int, ...]


def newest(steps: Iterable[int], count: int) -> set[int]:
    """The last ``count`` steps."""
    return set(sorted(steps)[-count:]) if count > 0 else set()


def first_of_every(steps: Iterable[int], interval: int | None) -> set[int]:
    """The first step at or past each multiple of ``interval``; saves seldom fall on the multiple itself."""
    if interval is None:
        return set()
    first: dict[int, int] = {}
    for step in sorted(steps):
        first.setdefault(step // interval, step)
    first.pop(0, None)
    return set(first.values())


def best_steps(steps: Iterable[int], scores: Mapping[int, float], count: int, *, highest: bool = False) -> set[int]:
    """The ``count`` steps with the lowest (or highest) score; of equal ones the earliest. Unscored ones never."""
    sign = -1.0 if highest else 1.0
    ranked = sorted((sign * scores[step], step) for step in set(steps) if step in scores)
    return {step for _, step in ranked[: max(0, count)]}


def decide(
    steps: Collection[int],
    complete: Collection[int],
    *,
    policy: Policy,
    pins: Collection[int] = (),
    promoted: Collection[int] = (),
    scores: Scores = Scores(),
) -> Decision:
    """What to do with the checkpoints there are. ``complete`` are those known to be whole and not light; ``promoted``
    are the ends of a chain's parts, which stay, in time without their optimizer state.

    Nothing goes that is not older than two complete ones, so a damaged newer one is never taken for a successor;
    the newest ``keep_last`` complete ones, the pinned, and everything newer than two complete ones keep their
    optimizer state.
    """
    whole = sorted(set(complete) & set(steps))
    if len(whole) < FEWEST:
        return Decision(keep=frozenset(steps), lighten=frozenset(), remove=())
    resumable = newest(whole, max(FEWEST, policy.keep_last))
    wanted = (
        resumable
        | (set(pins) & set(steps))
        | (set(promoted) & set(steps))
        | first_of_every(steps, policy.keep_every_steps)
        | best_steps(steps, scores.losses, policy.keep_best)
        | best_steps(steps, scores.quality, policy.keep_best_quality, highest=True)
    )
    older = {step for step in steps if step < whole[-FEWEST]}
    remove = tuple(sorted(older - wanted))
    lighten = (older & wanted & set(whole)) - resumable - set(pins) if policy.drop_old_optimizer else set()
    return Decision(keep=frozenset(set(steps) - set(remove)), lighten=frozenset(lighten), remove=remove)
