"""The validation curve of a run, from its telemetry: one point a step, what a kill undid left out."""

from __future__ import annotations

from typing import Any

from ondevice.run.directory import RunDir
from ondevice.run.telemetry import as_number, read_records
from ondevice.study.trajectory import Point

__all__ = ["validation_points"]


def validation_points(run: RunDir, source: str | None = None) -> list[Point]:
    """Of all sources together, or of one; a step that was measured twice counts as measured last."""
    points: dict[int, Point] = {}
    for record in read_records(run.telemetry):
        if record["kind"] == "launch":
            resumed = _whole(record.get("resumed_step"))
            points = {step: point for step, point in points.items() if step <= (-1 if resumed is None else resumed)}
        elif record["kind"] == "eval":
            step, tokens, loss = _whole(record.get("step")), _whole(record.get("tokens")), _loss(record, source)
            if step is not None and loss is not None:
                points[step] = Point(step=step, tokens=tokens or 0, loss=loss)
    return [points[step] for step in sorted(points)]


def _loss(record: dict[str, Any], source: str | None) -> float | None:
    if source is None:
        return as_number(record.get("val_loss_mixed"))
    losses = record.get("val_loss")
    return as_number(losses.get(source)) if isinstance(losses, dict) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None
