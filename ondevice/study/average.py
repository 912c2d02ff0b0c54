"""The mean of a window of checkpoints, as a run of its own: measured, generated from, exported and forked like any.

It is a fork of the newest of them with the optimizer begun anew; its identity names every checkpoint that went in.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from ondevice.errors import CheckpointError, UsageError
from ondevice.run.directory import RunDir
from ondevice.run.store import Store
from ondevice.train.fork import ForkWish, fork_run, plan_fork

__all__ = ["average_run", "window"]

_MORE_STEPS = 0.1  # of the steps so far, should someone train it on


def window(there: Sequence[int], *, first: int | None, last: int | None, count: int | None) -> list[int]:
    """The steps between ``first`` and ``last``, of those the newest ``count``. Raises UsageError for fewer than two."""
    steps = [step for step in there if (first is None or step >= first) and (last is None or step <= last)]
    steps = steps if count is None else steps[-count:]
    if len(steps) < 2:
        known = ", ".join(map(str, there)) or "none"
        raise UsageError(f"An average needs at least two checkpoints; there are: {known}.")
    return steps


def average_run(run: RunDir, steps: Sequence[int], *, name: str = "") -> RunDir:
    """Makes the run; repeated, gives the one that was made. Raises CheckpointError for a damaged checkpoint, UsageError
    where the name is taken."""
    store = Store(run.checkpoints)
    with ExitStack() as held:
        leased = [held.enter_context(store.lease(step)) for step in sorted(steps)]
        newest = leased[-1]
        if any(each.facts.get("recipe_sha256") != newest.facts.get("recipe_sha256") for each in leased):
            raise CheckpointError(f"{run.name}: these checkpoints were made by different recipes.")
        more = max(1, round(_MORE_STEPS * newest.step))
        called = name or f"{run.name}-average-{leased[0].step}-{newest.step}"
        wish = ForkWish(name=called, steps=more, fresh_optimizer=True)
        return fork_run(plan_fork(run, newest, wish, averaged=tuple(leased)))
