"""A curve of any length in bounded memory: points (x, y), thinned evenly where they become too many.

Numbers are kept in flat arrays. What was appended is never changed in place: a `Series.curve` given out stays as it was
while the series grows, is thinned or cut. Knows nothing of records, files or screens.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

from ondevice.run.telemetry import as_number

__all__ = ["Curve", "Series", "thinned"]


class Curve:
    """Points in order of x: two arrays of equal length that nobody changes any more."""

    __slots__ = ("size", "xs", "ys")

    def __init__(self, xs: array[float] | None = None, ys: array[float] | None = None, size: int | None = None) -> None:
        """``size``: how many of the first points count; the arrays may grow behind them."""
        self.xs, self.ys = array("d") if xs is None else xs, array("d") if ys is None else ys
        self.size = len(self.xs) if size is None else size

    def __len__(self) -> int:
        return self.size

    def between(self, start: float, end: float) -> tuple[int, int]:
        """Indices of the points from ``start`` to ``end``, and one more on either side so that lines reach the edge."""
        first = bisect_left(self.xs, start, 0, self.size)
        last = bisect_right(self.xs, end, first, self.size)
        return max(0, first - 1), min(self.size, last + 1)

    def at(self, x: float) -> float | None:
        """The value at ``x``, on a straight line between its neighbours; beyond the ends that of the end."""
        if not self.size:
            return None
        right = bisect_left(self.xs, x, 0, self.size)
        if right == 0 or right == self.size:
            return self.ys[min(right, self.size - 1)]
        x0, x1, y0, y1 = self.xs[right - 1], self.xs[right], self.ys[right - 1], self.ys[right]
        return y1 if x1 <= x0 else y0 + (y1 - y0) * (x - x0) / (x1 - x0)


class Series:
    """Points in order of x, at most ``capacity`` of them, however many are added.

    Beyond that, buckets of equally many points keep their lowest and their highest (``keep="extremes"``) or their mean
    (``keep="mean"``); the first and the last point stay. All buckets have the same size, so that the beginning of a
    long run is kept as well as its end.
    """

    def __init__(self, capacity: int = 2048, *, keep: str = "extremes") -> None:
        assert keep in ("extremes", "mean")
        self.capacity, self._is_mean = max(16, capacity), keep == "mean"
        self._begin()

    def _begin(self) -> None:
        self._xs, self._ys = array("d"), array("d")  # the first point, then what is kept of full buckets
        self._bucket = 1  # added points for which one (mean) or two (extremes) are kept
        self._raw_xs, self._raw_ys = array("d"), array("d")  # of the bucket that is not full yet
        self._last: tuple[float, float] | None = None
        self._given: Curve | None = None

    def add(self, x: float, y: Any) -> None:
        """Appends a point; what is not a finite number is left out. A point not beyond the last rewinds to there."""
        y = as_number(y)
        if y is None:
            return
        self._rewind(x)
        self._last, self._given = (x, y), None
        is_whole = self._bucket == 1
        xs, ys = (self._xs, self._ys) if is_whole else (self._raw_xs, self._raw_ys)
        xs.append(x)
        ys.append(y)
        if len(xs) >= (self.capacity - 4 if is_whole else self._bucket):
            self._settle()

    def extend(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        """Appends points with rising x and finite y; rewinds first where they do not begin beyond the last."""
        if not xs:
            return
        self._rewind(xs[0])
        self._last, self._given = (xs[-1], ys[-1]), None
        for start in range(0, len(xs), self.capacity):  # so that buckets grow before much is copied
            self._take(xs[start : start + self.capacity], ys[start : start + self.capacity])

    def _take(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        raw = self._bucket > 1
        (self._raw_xs if raw else self._xs).extend(xs)
        (self._raw_ys if raw else self._ys).extend(ys)
        self._settle()

    def cut_after(self, x: float) -> None:
        """Forgets points beyond ``x``: they were lost with the step they belong to."""
        if self._last is not None and self._last[0] > x:
            self._keep_before(math.nextafter(x, math.inf))

    def curve(self) -> Curve:
        """The points as they are now."""
        if self._given is None:
            tail_xs, tail_ys = self._tail()
            if len(tail_xs):
                self._given = Curve(self._xs + tail_xs, self._ys + tail_ys)
            else:
                self._given = Curve(self._xs, self._ys, len(self._xs))
        return self._given

    @property
    def points(self) -> list[tuple[float, float]]:
        tail_xs, tail_ys = self._tail()
        return list(zip((*self._xs, *tail_xs), (*self._ys, *tail_ys), strict=True))

    @property
    def last(self) -> float | None:
        return None if self._last is None else self._last[1]

    def __len__(self) -> int:
        return len(self._xs) + len(self._tail()[0])

    def _tail(self) -> tuple[array[float], array[float]]:
        """At most four points of the bucket that is not full yet, and the last point in any case."""
        count = len(self._raw_xs)
        if self._is_mean and count > 1:
            return _means(self._raw_xs, self._raw_ys, count)
        if count:
            return thinned(self._raw_xs, self._raw_ys, 4)
        if self._last is not None and self._last[0] > self._xs[-1]:  # of a bucket that kept others
            return array("d", self._last[:1]), array("d", self._last[1:])
        return self._raw_xs, self._raw_ys

    def _rewind(self, x: float) -> None:
        if self._last is not None and self._last[0] >= x:
            self._keep_before(x)

    def _keep_before(self, x: float) -> None:
        """In new arrays: those there are may have been given out."""
        self._given = None
        keep = bisect_left(self._xs, x)
        if not keep:
            self._begin()
            return
        if keep < len(self._xs):
            self._xs, self._ys = self._xs[:keep], self._ys[:keep]
        keep = bisect_left(self._raw_xs, x)
        self._raw_xs, self._raw_ys = self._raw_xs[:keep], self._raw_ys[:keep]
        xs, ys = (self._raw_xs, self._raw_ys) if keep else (self._xs, self._ys)
        self._last = (xs[-1], ys[-1])

    def _settle(self) -> None:
        if self._bucket > 1 and len(self._raw_xs) >= self._bucket:
            self._empty_bucket()
        while len(self._xs) > self.capacity - 4:  # room for the bucket that is not full
            self._thin()

    def _empty_bucket(self) -> None:
        """Moves full buckets to the kept points."""
        full = len(self._raw_xs) // self._bucket * self._bucket
        xs, ys = _bucketed(self._raw_xs[:full], self._raw_ys[:full], self._bucket, is_mean=self._is_mean)
        # Appending leaves a curve that was given out as it is: it ends where the arrays ended then.
        self._xs.extend(xs)
        self._ys.extend(ys)
        self._raw_xs, self._raw_ys = self._raw_xs[full:], self._raw_ys[full:]

    def _thin(self) -> None:
        """Halves the points; buckets become so much larger."""
        kept = 2 if self._is_mean else 4
        xs, ys = _bucketed(self._xs[1:], self._ys[1:], kept, is_mean=self._is_mean)
        self._xs, self._ys = self._xs[:1] + xs, self._ys[:1] + ys
        self._bucket *= 4 if self._bucket == 1 and not self._is_mean else 2


def _bucketed(xs: array[float], ys: array[float], size: int, *, is_mean: bool) -> tuple[array[float], array[float]]:
    """What is kept of buckets of ``size`` points; the last may be shorter."""
    return _means(xs, ys, size) if is_mean else _extremes(xs, ys, size)


def _means(xs: array[float], ys: array[float], size: int) -> tuple[array[float], array[float]]:
    """Each mean stands at the last x of its bucket."""
    kept_xs, kept_ys = array("d"), array("d")
    for start in range(0, len(xs), size):
        part = ys[start : start + size]
        kept_xs.append(xs[start + len(part) - 1])
        kept_ys.append(sum(part) / len(part))
    return kept_xs, kept_ys


def _extremes(xs: array[float], ys: array[float], size: int) -> tuple[array[float], array[float]]:
    kept_xs, kept_ys = array("d"), array("d")
    for start in range(0, len(xs), size):
        part = ys[start : start + size]
        low, high = min(part), max(part)
        if low == high:  # both ends of a flat piece, so that every bucket keeps as many points
            first, second = 0, len(part) - 1
        else:
            first, second = sorted((part.index(low), part.index(high)))
        kept_xs.append(xs[start + first])
        kept_ys.append(part[first])
        if second > first:
            kept_xs.append(xs[start + second])
            kept_ys.append(part[second])
    return kept_xs, kept_ys


def thinned(xs: array[float], ys: array[float], most: int) -> tuple[array[float], array[float]]:
    """At most ``most`` (or 4) of the points, extremes kept, first and last always."""
    if len(xs) <= max(4, most):
        return xs, ys
    size = math.ceil(2 * (len(xs) - 2) / max(2, most - 2))
    inner_xs, inner_ys = _extremes(xs[1:-1], ys[1:-1], size)
    return array("d", (xs[0], *inner_xs, xs[-1])), array("d", (ys[0], *inner_ys, ys[-1]))
