"""The digest: a pure fold of telemetry records into what a person wants to know of a run.

Fed by `telemetry.read_records` (or a tail of it), read by ``status``, ``runs list``, reports and the terminal UI. Holds
a bounded number of points however long the run; when it thins a series it keeps each bucket's extremes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Digest", "Series", "digest"]


class Series:
    """Points (x, y) in order of x, thinned to at most ``capacity``, keeping the lowest and highest of each bucket."""

    def __init__(self, capacity: int = 2048) -> None:
        self.capacity = max(8, capacity)
        self.points: list[tuple[float, float]] = []

    def add(self, x: float, y: float | None) -> None:
        if y is None:
            return
        self.points.append((x, y))
        if len(self.points) > self.capacity:
            self._thin()

    def cut_after(self, x: float) -> None:
        """Forgets points beyond ``x``: they were lost with the step they belong to."""
        while self.points and self.points[-1][0] > x:
            self.points.pop()

    @property
    def last(self) -> float | None:
        return self.points[-1][1] if self.points else None

    def _thin(self) -> None:
        kept = [self.points[0]]
        for start in range(1, len(self.points) - 1, 4):
            bucket = self.points[start : min(start + 4, len(self.points) - 1)]
            kept += sorted({min(bucket, key=lambda p: p[1]), max(bucket, key=lambda p: p[1])})
        self.points = [*kept, self.points[-1]]


@dataclass
class Digest:
    """The state of a run as its telemetry tells it. Losses are nats per token."""

    launches: int = 0
    kills: int = 0
    step: int = 0
    steps: int | None = None
    tokens: int = 0
    loss: Series = field(default_factory=Series)
    lr: Series = field(default_factory=Series)
    grad_norm: Series = field(default_factory=Series)
    tok_s: Series = field(default_factory=Series)
    val_loss: dict[str, Series] = field(default_factory=dict)
    best_step: int | None = None
    best_loss: float | None = None
    rss_mb: float | None = None
    checkpoints: list[int] = field(default_factory=list)
    samples: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=16))
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=200))
    ended: dict[str, Any] | None = None
    last_t: float | None = None
    _open: bool = False

    def fold(self, record: dict[str, Any]) -> None:
        """Takes one record into account; unknown kinds and missing keys are ignored."""
        self.last_t = record.get("t", self.last_t)
        handler = getattr(self, f"_on_{record.get('kind')}", None)
        if handler is not None:
            handler(record)
        if record.get("kind") not in ("step", "reading", "sample"):
            self.events.append(record)

    def _on_launch(self, record: dict[str, Any]) -> None:
        self.kills += self._open
        self.launches += 1
        self._open, self.ended = True, None
        self.steps = record.get("steps", self.steps)
        resumed = record.get("resumed_step")
        self._forget_after(-1 if resumed is None else resumed)

    def _forget_after(self, step: int) -> None:
        for series in (self.loss, self.lr, self.grad_norm, self.tok_s, *self.val_loss.values()):
            series.cut_after(step)
        self.step = max(0, min(self.step, step))
        self.checkpoints = [saved for saved in self.checkpoints if saved <= step]
        self.samples = deque((s for s in self.samples if s.get("step", 0) <= step), maxlen=16)
        if self.best_step is not None and self.best_step > step:
            self._find_best()

    def _on_step(self, record: dict[str, Any]) -> None:
        self.step = record.get("step", self.step)
        self.tokens = record.get("tokens", self.tokens)
        self.rss_mb = record.get("rss_mb", self.rss_mb)
        for series, key in (
            (self.loss, "loss"),
            (self.lr, "lr"),
            (self.grad_norm, "grad_norm"),
            (self.tok_s, "tok_s"),
        ):
            series.add(self.step, record.get(key))

    def _on_eval(self, record: dict[str, Any]) -> None:
        step = record.get("step", self.step)
        for source, loss in (record.get("val_loss") or {}).items():
            self.val_loss.setdefault(source, Series(512)).add(step, loss)
        mixed = record.get("val_loss_mixed")
        self.val_loss.setdefault("", Series(512)).add(step, mixed)
        if mixed is not None and (self.best_loss is None or mixed < self.best_loss):
            self.best_step, self.best_loss = step, mixed

    def _find_best(self) -> None:
        points = self.val_loss.get("", Series()).points
        best = min(points, key=lambda point: point[1], default=None)
        self.best_step, self.best_loss = (int(best[0]), best[1]) if best else (None, None)

    def _on_sample(self, record: dict[str, Any]) -> None:
        self.samples.append(record)

    def _on_checkpoint(self, record: dict[str, Any]) -> None:
        removed = set(record.get("removed") or ())
        self.checkpoints = [step for step in self.checkpoints if step not in removed]
        if (step := record.get("step")) is not None and step not in self.checkpoints:
            self.checkpoints.append(step)

    def _on_end(self, record: dict[str, Any]) -> None:
        self._open, self.ended = False, record


def digest(records: Iterable[dict[str, Any]]) -> Digest:
    """Folds all records."""
    result = Digest()
    for record in records:
        result.fold(record)
    return result
