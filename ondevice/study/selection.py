"""Which checkpoint to keep: winners by role under a declared rule, flags, regressions, and three sentences.

Rule, version 1: scalar is the lowest mixed validation loss; behaviour the highest quality; practical the highest
quality among those whose loss is within ``loss_tolerance`` of the lowest. Of equals the earliest. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from ondevice.errors import CheckpointError
from ondevice.evaluate.intervals import Interval, paired_mean
from ondevice.study.divergence import Flags, Scored, flags

__all__ = [
    "ROLE_NAMES",
    "SELECTION_FILE",
    "SELECTION_VERSION",
    "Candidate",
    "Regression",
    "Selection",
    "SelectionRule",
    "select",
]

SELECTION_VERSION = 1
SELECTION_FILE = "selection.json"  # in the evals of a run
ROLE_NAMES = {"scalar": "lowest loss", "behaviour": "best text", "practical": "for use"}  # for people
_WORST = 5


@dataclass(frozen=True, kw_only=True)
class SelectionRule:
    """``loss_tolerance`` is a share of the lowest loss."""

    loss_tolerance: float = 0.02

    def to_json(self) -> dict[str, Any]:
        return {"v": SELECTION_VERSION, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A checkpoint as it was measured: mixed loss in nats, quality of each prompt (empty where nobody judged), and the
    group of each prompt."""

    step: int
    loss: float | None
    quality: tuple[float, ...]
    groups: tuple[str, ...]

    @property
    def mean(self) -> float | None:
        return sum(self.quality) / len(self.quality) if self.quality else None


@dataclass(frozen=True, kw_only=True)
class Regression:
    """From one checkpoint to the next a group of prompts surely got worse, or (``prompt``) one of them by far."""

    before: int
    after: int
    group: str
    difference: Interval
    prompts: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """``roles`` maps scalar, behaviour and practical to steps, as far as they can be told."""

    roles: dict[str, int]
    flags: Flags
    regressions: tuple[Regression, ...]
    sentences: tuple[str, ...]


def select(candidates: Sequence[Candidate], rule: SelectionRule = SelectionRule()) -> Selection:
    """Raises CheckpointError where there is nothing to choose from."""
    rows = sorted(candidates, key=lambda row: row.step)
    if not any(row.loss is not None or row.quality for row in rows):
        raise CheckpointError("No checkpoint has a loss or a quality, so none can be chosen.")
    roles = _roles(rows, rule)
    judged = [Scored(step=row.step, loss=row.loss, quality=row.quality) for row in rows if row.quality]
    found = flags(judged)
    regressions = _regressions([row for row in rows if row.quality])
    return Selection(roles=roles, flags=found, regressions=regressions, sentences=_sentences(rows, roles, found, rule))


def _roles(rows: Sequence[Candidate], rule: SelectionRule) -> dict[str, int]:
    roles = {}
    with_loss = [row for row in rows if row.loss is not None]
    with_quality = [row for row in rows if row.quality]
    if with_loss:
        roles["scalar"] = min(with_loss, key=lambda row: (_loss(row), row.step)).step
    if with_quality:
        roles["behaviour"] = max(with_quality, key=_by_quality).step
    if with_loss:
        limit = min(map(_loss, with_loss)) * (1 + rule.loss_tolerance)
        near = [row for row in with_quality if row.loss is not None and row.loss <= limit]
        roles["practical"] = max(near, key=_by_quality).step if near else roles["scalar"]
    else:
        roles["practical"] = roles["behaviour"]
    return roles


def _loss(row: Candidate) -> float:
    assert row.loss is not None
    return row.loss


def _by_quality(row: Candidate) -> tuple[float, int]:
    return row.mean or 0.0, -row.step


def _regressions(rows: Sequence[Candidate]) -> tuple[Regression, ...]:
    """Of every group from each checkpoint to the next, where the adjusted interval lies below 0."""
    pairs = list(pairwise(rows))
    names = list(dict.fromkeys(rows[0].groups)) if rows else []
    level = 1 - 0.05 / max(1, len(pairs) * len(names))
    found = []
    for before, after in pairs:
        for name in names:
            places = [place for place, group in enumerate(before.groups) if group == name]
            falls = {place: after.quality[place] - before.quality[place] for place in places}
            difference = paired_mean(list(falls.values()), level=level)
            if difference.high < 0:
                worst = sorted(places, key=lambda place: (falls[place], place))[:_WORST]
                found.append(
                    Regression(
                        before=before.step, after=after.step, group=name, difference=difference, prompts=tuple(worst)
                    )
                )
    return tuple(found)


def _sentences(
    rows: Sequence[Candidate], roles: dict[str, int], found: Flags, rule: SelectionRule
) -> tuple[str, str, str]:
    return _who(rows, roles), _parting(rows, roles, found), _release(roles, rule)


def _who(rows: Sequence[Candidate], roles: dict[str, int]) -> str:
    by_step = {row.step: row for row in rows}
    parts = []
    if "scalar" in roles:
        parts.append(f"step {roles['scalar']:,} has the lowest loss ({by_step[roles['scalar']].loss:.4f})")
    if "behaviour" in roles:
        mean = by_step[roles["behaviour"]].mean or 0.0
        parts.append(f"step {roles['behaviour']:,} writes the best text ({mean:.1f} of 100)")
    text = f"Of {len(rows)} checkpoint{'s' if len(rows) > 1 else ''}, " + " and ".join(parts)
    return f"{text}."


def _parting(rows: Sequence[Candidate], roles: dict[str, int], found: Flags) -> str:
    if len(rows) == 1:
        return "There is nothing to compare it with; more are kept with limits.keep_last."
    if found.divergences:
        worst = min(found.divergences, key=lambda each: each.quality_change)
        return (
            f"Loss and quality part: step {worst.worse:,} has {-worst.loss_change:.0%} less loss than step "
            f"{worst.best:,} and scores {-worst.quality_change:.0%} worse."
        )
    if found.non_monotonic is not None:
        return f"Quality rose to step {found.non_monotonic:,} and surely fell afterwards, so the last is not the best."
    if "behaviour" not in roles:
        return "Quality was not judged, so whether it follows the loss is unknown."
    if roles["behaviour"] != rows[-1].step:
        return "The last checkpoint is not the best, but the difference may be chance."
    if roles.get("scalar", rows[-1].step) != rows[-1].step:
        return (
            f"Loss and quality part: the loss was lowest at step {roles['scalar']:,}, and the text of step "
            f"{rows[-1].step:,} is no worse, as where a model begins to know its text by heart."
        )
    return "Quality follows the loss as far as these prompts can tell."


def _release(roles: dict[str, int], rule: SelectionRule) -> str:
    if "behaviour" not in roles:
        return f"For use take step {roles['practical']:,}, the lowest loss."
    if "scalar" not in roles:
        return f"For use take step {roles['practical']:,}, the best text."
    return (
        f"For use take step {roles['practical']:,}: the best text among those whose loss is within "
        f"{rule.loss_tolerance:.0%} of the lowest."
    )
