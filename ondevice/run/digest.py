"""The digest: a pure fold of telemetry records into what a person wants to know of a run.

Fed by `telemetry.read_records` (or a tail of it), read by ``status``, ``runs list``, reports and the terminal UI. Holds
a bounded number of points however long the run; when it thins a series it keeps each bucket's extremes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ondevice.run.series import Series
from ondevice.run.telemetry import KINDS, as_number
from ondevice.run.usage import Usage

__all__ = ["Digest", "Series", "best_of", "digest"]


_MOST_CHECKPOINTS = 1000
_MOST_SOURCES = 1000


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
    usage: Usage = field(default_factory=Usage)
    _open: bool = False

    def fold(self, record: dict[str, Any]) -> None:
        """Takes one record into account; unknown kinds, missing keys and values of a wrong type are ignored."""
        kind, t = record.get("kind"), as_number(record.get("t"))
        self.last_t = self.last_t if t is None else t
        handler = getattr(self, f"_on_{kind}", None) if kind in KINDS else None
        if handler is not None:
            handler(record)
            self.usage.fold(record)
        if kind not in ("step", "reading", "sample"):
            self.events.append(record)

    def _on_launch(self, record: dict[str, Any]) -> None:
        self.kills += self._open
        self.launches += 1
        self._open, self.ended = True, None
        self.steps = _whole(record.get("steps")) or self.steps
        resumed = _whole(record.get("resumed_step"))
        self._forget_after(-1 if resumed is None else resumed)
        self.step = max(self.step, resumed or 0)  # a fork begins where its parent was

    def _forget_after(self, step: int) -> None:
        """Back to the checkpoint of ``step``: what came later is lost and will happen again."""
        for series in (self.loss, self.lr, self.grad_norm, self.tok_s, *self.val_loss.values()):
            series.cut_after(step)
        if step < self.step:
            kept = max(0, step)
            self.tokens = self.tokens * kept // max(1, self.step)  # every step has the same number of tokens
            self.step = kept
        self.checkpoints = [saved for saved in self.checkpoints if saved <= step]
        self.samples = deque((s for s in self.samples if (_whole(s.get("step")) or 0) <= step), maxlen=16)
        if self.best_step is not None and self.best_step > step:
            self._find_best()

    def _on_step(self, record: dict[str, Any]) -> None:
        step = _whole(record.get("step"))
        if step is None:
            return
        self.step = step
        self.tokens = _whole(record.get("tokens")) or self.tokens
        self.loss.add(step, record.get("loss"))
        self.lr.add(step, record.get("lr"))
        self.grad_norm.add(step, record.get("grad_norm"))
        self.tok_s.add(step, record.get("tok_s"))

    def _on_eval(self, record: dict[str, Any]) -> None:
        step, losses = _whole(record.get("step")), record.get("val_loss")
        if step is None:
            return
        for source, loss in losses.items() if isinstance(losses, dict) else ():
            self._val_series(source).add(step, loss)
        mixed = as_number(record.get("val_loss_mixed"))
        self._val_series("").add(step, mixed)
        if mixed is not None and (self.best_loss is None or mixed < self.best_loss):
            self.best_step, self.best_loss = step, mixed

    def _val_series(self, source: str) -> Series:
        if source and len(self.val_loss) >= _MOST_SOURCES and source not in self.val_loss:
            return Series()
        return self.val_loss.setdefault(source, Series(512))

    def _find_best(self) -> None:
        points = self.val_loss.get("", Series()).points
        best = min(points, key=lambda point: point[1], default=None)
        self.best_step, self.best_loss = (int(best[0]), best[1]) if best else (None, None)

    def _on_reading(self, record: dict[str, Any]) -> None:
        rss_mb = as_number(record.get("rss_mb"))
        self.rss_mb = self.rss_mb if rss_mb is None else rss_mb

    def _on_sample(self, record: dict[str, Any]) -> None:
        self.samples.append(record)

    def _on_checkpoint(self, record: dict[str, Any]) -> None:
        removed, step = record.get("removed"), _whole(record.get("step"))
        gone = removed if isinstance(removed, list) else []
        self.checkpoints = [saved for saved in self.checkpoints if saved not in gone]
        if step is not None and step not in self.checkpoints:
            self.checkpoints = [*self.checkpoints, step][-_MOST_CHECKPOINTS:]

    def _on_end(self, record: dict[str, Any]) -> None:
        self._open, self.ended = False, record


def best_of(story: Digest, status: Mapping[str, Any]) -> tuple[int | None, float | None]:
    """Step and loss of the best evaluation. A full disk may have kept its line out of the story: then only the status
    knows it. Within a launch the lower loss is the newer one; what a status of an earlier launch tells may be undone.
    """
    step, loss, launch = _whole(status.get("best_step")), as_number(status.get("best_loss")), status.get("launch")
    told = story.best_step, story.best_loss
    if step is None or loss is None or type(launch) is not int or launch < story.launches:
        return told
    is_newer = launch > story.launches or story.best_loss is None or loss < story.best_loss
    return (step, loss) if is_newer else told


def _whole(value: Any) -> int | None:
    """A whole number as it is; None for anything else and for numbers that no counter reaches."""
    return value if type(value) is int and abs(value) < 2**63 else None


def digest(records: Iterable[dict[str, Any]]) -> Digest:
    """Folds all records."""
    result = Digest()
    for record in records:
        result.fold(record)
    return result
