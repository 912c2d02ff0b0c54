"""What a run told of its evaluations: one interval a step, what a kill undid left out; and what it cost.

Reads telemetry and the selection beside it; computes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.evaluate.trajectory import Point
from ondevice.run.comparison import MIXED
from ondevice.run.digest import Digest
from ondevice.run.directory import RunDir
from ondevice.run.files import read_sealed
from ondevice.run.recipe import VocabularyRecipe
from ondevice.run.telemetry import as_number, as_numbers, read_records
from ondevice.study.selection import SELECTION_FILE, SELECTION_VERSION

__all__ = [
    "Interval",
    "Story",
    "intervals_of",
    "loss_at",
    "lr_losses",
    "points_of",
    "read_in",
    "read_story",
    "validation_points",
]

_IN_PASSING = 0.1  # of the mean rate
_CHANGES = ("loss_change", "quality_change")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """One evaluation: losses in nats by source and of their mixture, tokens learned and epochs by source so far."""

    step: int
    tokens: int
    losses: dict[str, float]
    trained: dict[str, float]
    epochs: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Story:
    """A run in numbers. ``quality`` maps judged steps to scores by group and of all together; ``components`` are what
    the scores of the last judged step are made of, by group; ``diverged`` is the worst pair of steps between which the
    loss fell and the quality surely too; ``vocabulary`` tells which tokens the losses are over (None: all)."""

    intervals: tuple[Interval, ...]
    worked_s: float = 0.0
    energy_wh: float | None = None
    quality: dict[int, dict[str, float]] = field(default_factory=dict)
    components: dict[str, dict[str, float]] = field(default_factory=dict)
    diverged: dict[str, Any] | None = None
    vocabulary: VocabularyRecipe | None = None


def read_story(run: RunDir) -> Story:
    """Raises DataError or CheckpointError for telemetry that cannot be read."""
    digest, records = Digest(), []
    for record in read_records(run.telemetry):
        digest.fold(record)
        if record["kind"] in ("launch", "eval"):
            records.append(record)
    usage, selection = digest.usage, _selection(run)
    return Story(
        intervals=tuple(intervals_of(records)),
        worked_s=usage.worked_s,
        energy_wh=usage.energy_wh if usage.energy_s else None,
        quality=_quality(selection),
        components=_components(run, selection),
        diverged=_diverged(selection),
        vocabulary=run.read_recipe().vocabulary,
    )


def intervals_of(records: Any) -> list[Interval]:
    """Of telemetry records; a step that was measured twice counts as measured last."""
    found: dict[int, Interval] = {}
    for record in records:
        if record["kind"] == "launch":
            resumed = _whole(record.get("resumed_step"))
            found = {step: each for step, each in found.items() if step <= (-1 if resumed is None else resumed)}
        elif record["kind"] == "eval" and (each := _interval(record)) is not None:
            found[each.step] = each
    return [found[step] for step in sorted(found)]


def _interval(record: dict[str, Any]) -> Interval | None:
    step, tokens, mixed = _whole(record.get("step")), _whole(record.get("tokens")), record.get("val_loss_mixed")
    losses = as_numbers(record.get("val_loss")) | as_numbers({MIXED: mixed})
    if step is None or not losses:
        return None
    return Interval(
        step=step,
        tokens=tokens or 0,
        losses=losses,
        trained=as_numbers(record.get("trained_tokens")),
        epochs=as_numbers(record.get("trained_epochs")),
    )


def points_of(intervals: Iterator[Interval] | tuple[Interval, ...] | list[Interval], source: str) -> list[Point]:
    """The curve of one source, or of the mixture."""
    return [
        Point(step=each.step, tokens=each.tokens, loss=each.losses[source])
        for each in intervals
        if source in each.losses
    ]


def loss_at(intervals: Sequence[Interval], tokens: int, source: str) -> float | None:
    """The loss when so many tokens were learned, on a straight line between evaluations; None beyond them."""
    points = points_of(list(intervals), source)
    for point in points:
        if point.tokens == tokens:
            return point.loss
    for before, after in itertools.pairwise(points):
        if before.tokens < tokens < after.tokens:
            share = (tokens - before.tokens) / (after.tokens - before.tokens)
            return before.loss + share * (after.loss - before.loss)
    return None


def read_in(intervals: Sequence[Interval], source: str) -> list[bool]:
    """Of each interval between two evaluations, whether the source was read in it and not in passing: at a tenth of its
    mean rate or faster. Where a pass is over, a window or two of the next one are no coming back."""
    if len(intervals) < 2:
        return []
    whole = _rate(intervals[0], intervals[-1], source)
    rates = [_rate(before, after, source) for before, after in itertools.pairwise(intervals)]
    return [rate > 0 and rate >= _IN_PASSING * whole for rate in rates]


def _rate(before: Interval, after: Interval, source: str) -> float:
    """Tokens of the source for each that was learned."""
    read = after.trained.get(source, 0.0) - before.trained.get(source, 0.0)
    return read / max(1, after.tokens - before.tokens)


def validation_points(run: RunDir, source: str | None = None) -> list[Point]:
    """The validation curve of a run: of all sources together, or of one."""
    return points_of(intervals_of(read_records(run.telemetry)), MIXED if source is None else source)


def lr_losses(run: RunDir) -> list[tuple[float, float]]:
    """Learning rate and training loss of every step."""
    found: dict[int, tuple[float, float]] = {}
    for record in read_records(run.telemetry):
        lr, loss = as_number(record.get("lr")), as_number(record.get("loss"))
        if record["kind"] == "step" and lr is not None and loss is not None:
            found[record["step"]] = (lr, loss)
    return [found[step] for step in sorted(found)]


def _selection(run: RunDir) -> dict[str, Any]:
    """What was judged of the run; nothing where it was not."""
    with suppress(OndeviceError):
        return read_sealed(run.evals / SELECTION_FILE, version=SELECTION_VERSION)
    return {}


def _quality(selection: dict[str, Any]) -> dict[int, dict[str, float]]:
    with suppress(KeyError, TypeError, AttributeError):
        return {
            row["step"]: as_numbers(row["quality_groups"]) | as_numbers({MIXED: row["quality"]})
            for row in selection["checkpoints"]
            if row["quality"] is not None
        }
    return {}


def _components(run: RunDir, selection: dict[str, Any]) -> dict[str, dict[str, float]]:
    """From the panel of the last checkpoint that was judged."""
    from ondevice.study.evaluation import PANEL_VERSION  # brings torch along, which a report of a run does without

    with suppress(OndeviceError, KeyError, TypeError, AttributeError, ValueError):
        last = max(selection["checkpoints"], key=lambda row: row["step"])
        panel = read_sealed((run.evals / Path(last["generations"]).name).with_suffix(".json"), version=PANEL_VERSION)
        return {name: as_numbers(each) for name, each in panel["quality"]["groups"].items()}
    return {}


def _diverged(selection: dict[str, Any]) -> dict[str, Any] | None:
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        worst = min(selection["flags"]["divergences"], key=lambda each: each["quality_change"], default=None)
        return None if worst is None else {name: worst[name] for name in ("best", "worse", *_CHANGES)}
    return None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None
