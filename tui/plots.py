"""Curves of a run to plot, zoom and pan: by steps, tokens or time, decimated so that extremes stay.

A `Plots` is frozen; the feed makes a new one at no cost when there is more. Knows nothing of files or screens.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from ondevice.run.series import Curve, thinned

__all__ = ["AXES", "BY_STEP", "BY_TIME", "Line", "Plots"]

AXES = ("steps", "tokens", "time", "elapsed")
BY_STEP = ("loss", "lr", "grad_norm", "step_s", "tok_s")
BY_TIME = (
    "cpu_c", "battery_c", "skin_c", "duty", "power_w", "freq_share",
    "battery_percent", "rss_mb", "available_mb", "disk_free_mb",
)  # fmt: skip
SMOOTH, VAL, TOK_S = "loss_smooth", "val:", "tok_s"

_SMOOTHED_OVER = 1 / 20  # of what is seen
_SHORTEST_S = 1e-6


@dataclass(frozen=True)
class Line:
    """Points to draw: two arrays of equal length, x rising."""

    xs: Sequence[float] = ()
    ys: Sequence[float] = ()

    def __len__(self) -> int:
        return len(self.xs)

    def __bool__(self) -> bool:
        return bool(len(self.xs))


@dataclass(frozen=True, eq=False)
class Plots:
    """``run.plots.series("loss", x="time", start=None, end=None, max_points=400)``.

    Names: those of `BY_STEP`; ``loss_smooth``, a mean over a twentieth of what is seen; ``val:`` for the mixture's
    validation loss and ``val:NAME`` for a source's; those of `BY_TIME`, which sensors told (``duty``: the share of the
    time that the governor let it work). Any of them goes by any of `AXES`: ``steps``, ``tokens``, ``time`` (unix
    seconds, in which a clock that was set anew makes no gap and no loop) or ``elapsed`` (seconds since the first
    record).
    """

    by_step: Mapping[str, Curve] = field(default_factory=dict)
    by_time: Mapping[str, Curve] = field(default_factory=dict)
    times: Curve = field(default_factory=Curve)  # of steps
    tokens: Curve = field(default_factory=Curve)  # of steps
    began_t: float = 0.0
    tokens_a_step: float | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of all curves that have points."""
        smooth = (SMOOTH,) if len(self._curve(SMOOTH)) else ()
        rate = (TOK_S,) if self.tokens_a_step and len(self._curve(TOK_S)) else ()
        curves = (*self.by_step.items(), *self.by_time.items())
        return (*(name for name, curve in curves if len(curve) and name != SMOOTH), *smooth, *rate)

    def extent(self, name: str, *, x: str = "steps") -> tuple[float, float] | None:
        """First and last x of a curve; None where it has no points."""
        curve = self._curve(name)
        if not len(curve):
            return None
        first, last = (self._to(x, name, curve.xs[index]) for index in (0, curve.size - 1))
        return first, last

    def series(
        self,
        name: str,
        *,
        x: str = "steps",
        start: float | None = None,
        end: float | None = None,
        max_points: int = 400,
    ) -> Line:
        """At most ``max_points`` of the curve between ``start`` and ``end`` (in units of ``x``), the neighbours
        outside included so that lines reach the edges. Empty for a name there is nothing of.
        """
        assert x in AXES, x
        curve = self._curve(name)
        first, last = curve.between(
            -math.inf if start is None else self._from(x, name, start),
            math.inf if end is None else self._from(x, name, end),
        )
        xs, ys = curve.xs[first:last], curve.ys[first:last]
        xs, ys = _smoothed(xs, ys, max_points) if name == SMOOTH else thinned(xs, ys, max_points)
        if name == TOK_S:
            ys = array("d", ((self.tokens_a_step or 0.0) / max(step_s, _SHORTEST_S) for step_s in ys))
        return Line(array("d", (self._to(x, name, value) for value in xs)), ys)

    def _curve(self, name: str) -> Curve:
        """Burst rates are kept as the times of steps, which all have as many tokens."""
        if name == TOK_S:
            return self.by_step.get("step_s") or Curve()
        return self.by_step.get(name) or self.by_time.get(name) or Curve()

    def _to(self, x: str, name: str, value: float) -> float:
        """An own x of a curve (step or time) in units of an axis."""
        if name in self.by_time:
            if x in ("time", "elapsed"):
                return value - (self.began_t if x == "elapsed" else 0.0)
            value = _or(self._steps_at(value), 0.0)
        if x == "steps":
            return value
        if x == "tokens":
            return _or(self.tokens.at(value), value)
        return _or(self.times.at(value), 0.0) - (self.began_t if x == "elapsed" else 0.0)

    def _from(self, x: str, name: str, value: float) -> float:
        """The inverse of `_to`."""
        if x in ("time", "elapsed"):
            t = value + (self.began_t if x == "elapsed" else 0.0)
            return t if name in self.by_time else _or(self._steps_at(t), 0.0)
        step = value if x == "steps" else _or(Curve(self.tokens.ys, self.tokens.xs, self.tokens.size).at(value), value)
        return _or(self.times.at(step), 0.0) if name in self.by_time else step

    def _steps_at(self, t: float) -> float | None:
        return Curve(self.times.ys, self.times.xs, self.times.size).at(t)


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _smoothed(xs: array[float], ys: array[float], most: int) -> tuple[array[float], array[float]]:
    """The mean over a window around each of at most ``most`` points; narrower at both ends."""
    count = len(xs)
    if count < 3:
        return xs, ys
    sums = (0.0, *accumulate(ys))
    reach = max(1, round(count * _SMOOTHED_OVER / 2))
    stride = max(1, math.ceil(count / max(2, most)))
    places = sorted({*range(0, count, stride), count - 1})
    means = array("d")
    for place in places:
        around = min(reach, place, count - 1 - place)
        means.append((sums[place + around + 1] - sums[place - around]) / (2 * around + 1))
    return array("d", (xs[place] for place in places)), means
