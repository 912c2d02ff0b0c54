"""From the stages a person wishes for to stages with windows and shares: `plan_stages`.

A stage reads its groups by weight x tokens, and where it has a replay rate, groups of the stages before as well. Plain
values in and out; dealing the shares out is the business of ``ondevice.data.mixture``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ondevice.data.mixture import Blend, shares
from ondevice.data.permutation import Ints
from ondevice.errors import DataError, UsageError, nearest
from ondevice.run.recipe import StageRecipe
from ondevice.run.schema import StageConfig

__all__ = ["plan_stages", "stage_members"]


def plan_stages(wished: Sequence[StageConfig], blend: Blend, windows: Ints, total: int) -> tuple[StageRecipe, ...]:
    """The stages over ``total`` windows of training; ``windows`` (shape [S]) is what each source has.

    Raises UsageError for stages that overlap, name nothing, or ask for more than the whole; DataError for a stage
    without text.
    """
    if not wished:
        raise UsageError("data.order = 'staged' needs [[data.stages]] tables, each with a name and groups.")
    members = stage_members(wished, blend)
    lengths = _lengths(wished, [int(windows[own].sum()) for own in members], total)
    planned = []
    for number, stage in enumerate(wished):
        own = _part(blend, windows, members[number])
        earlier = sorted(index for before in members[:number] for index in before)
        if stage.replay and not number:
            raise UsageError(f"data.stages '{stage.name}': the first stage has nothing before it; leave replay out.")
        again = _part(blend, windows, earlier) if stage.replay else {}
        mixed = {name: share * (1 - stage.replay) for name, share in own.items()}
        mixed |= {name: share * stage.replay for name, share in again.items()}
        planned.append(StageRecipe(name=stage.name, windows=lengths[number], shares=mixed))
    return tuple(planned)


def stage_members(wished: Sequence[StageConfig], blend: Blend) -> list[list[int]]:
    """Sources of each stage, by index. Raises UsageError for stages that overlap or name nothing."""
    groups, seen, found = blend.members, dict[str, str](), []
    names = [stage.name for stage in wished]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"data.stages: two stages are called '{twice}'; give each its own name.")
    for stage in wished:
        if not stage.groups:
            raise UsageError(f"data.stages '{stage.name}': name the groups it reads, such as groups = [\"web\"].")
        for group in stage.groups:
            if group not in groups:
                known = ", ".join(groups)
                raise UsageError(
                    f"data.stages '{stage.name}': no group or source '{group}'{nearest(group, groups)}; known: {known}."
                )
            if group in seen:
                raise UsageError(
                    f"data.stages: '{group}' is in '{seen[group]}' and in '{stage.name}'; keep it in one, and let a "
                    "later stage read it again with replay."
                )
            seen[group] = stage.name
        found.append(sorted(index for group in stage.groups for index in groups[group]))
    return found


def _lengths(wished: Sequence[StageConfig], windows: Sequence[int], total: int) -> list[int]:
    """Windows of each stage, which sum to ``total``; each has at least one."""
    for stage, there in zip(wished, windows, strict=True):
        if not there:
            raise DataError(f"data.stages '{stage.name}': its groups have no text for a whole window; add text.")
    given = sum(stage.share or 0.0 for stage in wished)
    open_windows = sum(there for stage, there in zip(wished, windows, strict=True) if stage.share is None)
    if given > 1.0 + 1e-9 or (given >= 1.0 - 1e-9 and open_windows):
        raise UsageError(f"data.stages: the shares sum to {given:g}; leave something for every stage.")
    if total < len(wished):
        raise DataError(f"data.stages: {len(wished)} stages, but only {total} windows of training; train for longer.")
    left = 1.0 - given if open_windows else 0.0
    exact = np.array(
        [
            (left * there / open_windows if stage.share is None else stage.share / (given + left))
            for stage, there in zip(wished, windows, strict=True)
        ]
    )
    ends = np.round(np.cumsum(exact) * total).astype(np.int64)
    least = np.arange(1, len(wished) + 1)  # at least one window a stage, from both ends
    ends = np.maximum.accumulate(np.maximum(ends, least) - least) + least
    ends = np.minimum(ends, total - np.arange(len(wished) - 1, -1, -1))
    return [int(n) for n in np.diff(np.concatenate([[0], ends]))]


def _part(blend: Blend, windows: Ints, members: Sequence[int]) -> dict[str, float]:
    """Shares of those sources, by weight x tokens, summing to 1."""
    mask = np.zeros(len(windows), dtype=np.int64)
    mask[list(members)] = 1
    found: Mapping[int, float] = dict(enumerate(shares("proportional", windows * mask, blend).tolist()))
    return {blend.names[index]: found[index] for index in members if found[index] > 0}
