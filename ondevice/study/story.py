"""What a run told of its evaluations: one interval a step, what a kill undid left out; and what it cost.

Reads telemetry and the selection beside it; computes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.evaluate.trajectory import Point
from ondevice.run.digest import Digest
from ondevice.run.directory import RunDir
from ondevice.run.files import read_sealed
from ondevice.run.telemetry import as_number, read_records
from ondevice.study.selection import SELECTION_FILE, SELECTION_VERSION

__all__ = ["Interval", "Story", "intervals_of", "loss_at", "lr_losses", "points_of", "read_story", "validation_points"]

MIXED = ""  # the name of the mixture of all sources


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
    """A run in numbers. ``quality`` maps judged steps to scores by group and of all together."""

    intervals: tuple[Interval, ...]
    worked_s: float = 0.0
    energy_wh: float | None = None
    quality: dict[int, dict[str, float]] = field(default_factory=dict)


def read_story(run: RunDir) -> Story:
    """Raises DataError or CheckpointError for telemetry that cannot be read."""
    digest, records = Digest(), []
    for record in read_records(run.telemetry):
        digest.fold(record)
        if record["kind"] in ("launch", "eval"):
            records.append(record)
    usage = digest.usage
    return Story(
        intervals=tuple(intervals_of(records)),
        worked_s=usage.worked_s,
        energy_wh=usage.energy_wh if usage.energy_s else None,
        quality=_quality(run),
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
    losses = _numbers(record.get("val_loss")) | _numbers({MIXED: mixed})
    if step is None or not losses:
        return None
    return Interval(
        step=step,
        tokens=tokens or 0,
        losses=losses,
        trained=_numbers(record.get("trained_tokens")),
        epochs=_numbers(record.get("trained_epochs")),
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


def _quality(run: RunDir) -> dict[int, dict[str, float]]:
    """From the selection beside the run; nothing where it was not judged."""
    with suppress(OndeviceError, KeyError, TypeError):
        rows = read_sealed(run.evals / SELECTION_FILE, version=SELECTION_VERSION)["checkpoints"]
        return {
            row["step"]: _numbers(row["quality_groups"]) | _numbers({MIXED: row["quality"]})
            for row in rows
            if row["quality"] is not None
        }
    return {}


def _numbers(raw: Any) -> dict[str, float]:
    found = {name: as_number(value) for name, value in raw.items()} if isinstance(raw, dict) else {}
    return {name: value for name, value in found.items() if value is not None}


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None
