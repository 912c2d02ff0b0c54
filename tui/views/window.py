"""What one sees of the curves: which x, how much of it, and whether losses are drawn on a log scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tui.plots import AXES

__all__ = ["Window"]

_NARROWEST = 1e-4  # of the whole


@dataclass(frozen=True, kw_only=True)
class Window:
    """``start`` and ``end`` are shares of the whole x, so that they hold for every axis; 0 and 1 follow the run."""

    axis: str = "steps"
    log: bool = False
    start: float = 0.0
    end: float = 1.0

    @property
    def whole(self) -> bool:
        return self.start <= 0.0 and self.end >= 1.0

    def of(self, first: float, last: float) -> tuple[float, float]:
        """The window in units of an axis that spans ``first`` to ``last``."""
        return first + self.start * (last - first), first + self.end * (last - first)

    def zoomed(self, factor: float, at: float = 1.0) -> Window:
        """Narrower for a factor below 1, keeping in place what lies at that share of the window."""
        size = min(1.0, max(_NARROWEST, (self.end - self.start) * factor))
        start = self.start + (self.end - self.start - size) * at
        return self._at(start, size)

    def panned(self, share: float) -> Window:
        """Moved by a share of its width."""
        size = self.end - self.start
        return self._at(self.start + share * size, size)

    def next_axis(self, axes: tuple[str, ...] = AXES) -> Window:
        return replace(self, axis=axes[(axes.index(self.axis) + 1) % len(axes)])

    def with_log(self, log: bool) -> Window:
        return replace(self, log=log)

    def fitted(self) -> Window:
        """All of it."""
        return replace(self, start=0.0, end=1.0)

    def _at(self, start: float, size: float) -> Window:
        start = min(1.0 - size, max(0.0, start))
        return replace(self, start=start, end=start + size)
