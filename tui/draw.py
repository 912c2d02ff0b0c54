"""Curves, sparklines and bars as characters: Unicode where the terminal can, else ASCII. Pure; knows Rich's Text only.

Legend: a cell is one character; a dot is a part of a cell (2 x 4 in braille, 1 x 2 in ASCII).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from rich.text import Text

from tui.snapshot import Points
from tui.words import count, decimal

__all__ = ["ASCII", "UNICODE", "Curve", "Glyphs", "bar", "chart", "sparkline"]


@dataclass(frozen=True, kw_only=True)
class Glyphs:
    """The characters a screen may use. ``dots`` maps the bits of a cell to its character; bit = x + y * dots_x."""

    dots_x: int
    dots_y: int
    dots: str
    mark: str
    spark: str
    full: str
    half: str
    empty: str
    dot: str
    ellipsis: str
    degree: str
    states: dict[str, str] = field(repr=False)

    def state(self, name: str) -> str:
        """One character for a run's state."""
        return self.states.get(name, "?")


def _braille() -> str:
    """Braille characters ordered by our bits; the standard numbers its dots down the columns."""
    order = (0x01, 0x08, 0x02, 0x10, 0x04, 0x20, 0x40, 0x80)
    return "".join(chr(0x2800 + sum(order[i] for i in range(8) if bits >> i & 1)) for bits in range(256))


_STATES = ("running", "resting", "waiting", "asleep", "finished", "stopped", "failed", "killed", "new")

UNICODE = Glyphs(
    dots_x=2,
    dots_y=4,
    dots=_braille(),
    mark="◆",
    spark="▁▂▃▄▅▆▇█",
    full="━",
    half="╸",
    empty="─",
    dot="·",
    ellipsis="…",
    degree="°C",
    states=dict(zip(_STATES, "●◐‖◌✓■✗✗○", strict=True)),
)
ASCII = Glyphs(
    dots_x=1,
    dots_y=2,
    dots=" '.:",
    mark="o",
    spark="_.-=*#",
    full="#",
    half="#",
    empty="-",
    dot="|",
    ellipsis="..",
    degree=" C",
    states=dict(zip(_STATES, ">~=z+#!!.", strict=True)),
)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One curve of a chart: a line through its points, or a mark at each (``marks``), in a Rich style."""

    name: str
    points: Points
    style: str = ""
    marks: bool = False


def bar(share: float | None, width: int, glyphs: Glyphs = UNICODE, style: str = "") -> Text:
    """A progress bar of exactly ``width`` cells."""
    halves = int(2 * width * (share or 0.0))
    filled = glyphs.full * (halves // 2) + glyphs.half * (halves % 2)
    return Text(filled, style, no_wrap=True).append(glyphs.empty * (width - len(filled)), "dim")


def sparkline(points: Points, width: int, glyphs: Glyphs = UNICODE) -> str:
    """A curve in one line of at most ``width`` cells."""
    if not points or width < 1:
        return ""
    means = _columns(points, (points[0][0], points[-1][0]), min(width, len(points)))
    low, high = _range([mean for _, mean in means])
    top = len(glyphs.spark) - 1
    return "".join(glyphs.spark[round(top * min(1.0, (mean - low) / (high - low)))] for _, mean in means)


def chart(curves: Sequence[Curve], *, width: int, height: int, glyphs: Glyphs = UNICODE) -> Text:
    """Curves over a common x with labelled ends; the first curve's early fall does not flatten the rest.

    A line shows the mean of the points that share a column of dots.
    """
    curves = [curve for curve in curves if curve.points]
    if not curves or width < 16 or height < 3:
        return Text("no loss yet" if not curves else "")
    x_range = min(c.points[0][0] for c in curves), max(c.points[-1][0] for c in curves)
    y_range = _y_range(curves, x_range, width)
    labels = [decimal(y, 2) for y in (y_range[1], sum(y_range) / 2, y_range[0])]
    gutter = max(map(len, labels)) + 1
    canvas = _Canvas(width - gutter, height - 1, glyphs, x_range=x_range, y_range=y_range)
    for number, curve in enumerate(curves):
        (canvas.mark if curve.marks else canvas.line)(curve.points, number)
    text = Text(no_wrap=True)
    for y, row in enumerate(canvas.rows([curve.style for curve in curves])):
        label = {0: labels[0], (height - 1) // 2: labels[1], height - 2: labels[2]}.get(y, "")
        text.append(f"{label:>{gutter - 1}} ", "dim").append_text(row).append("\n")
    return text.append_text(_x_axis(curves, x_range, gutter, width, glyphs))


def _x_axis(curves: Sequence[Curve], x_range: tuple[float, float], gutter: int, width: int, glyphs: Glyphs) -> Text:
    first, last = (count(x) for x in x_range)
    legend = Text("  ").join(
        Text(f"{glyphs.mark if curve.marks else glyphs.empty} {curve.name}", curve.style) for curve in curves
    )
    room = width - gutter - len(first) - len(last)
    text = Text(" " * gutter, no_wrap=True).append(first, "dim")
    if legend.cell_len + 2 > room:
        return text.append(" " * room).append(last, "dim")
    left = (room - legend.cell_len) // 2
    return text.append(" " * left).append_text(legend).append(" " * (room - left - legend.cell_len)).append(last, "dim")


def _columns(points: Points, x_range: tuple[float, float], columns: int) -> list[tuple[int, float]]:
    """(column, mean of the points in it) for every column that has points."""
    sums: dict[int, tuple[float, int]] = {}
    for x, y in points:
        column = _scaled(x, x_range, columns)
        total, number = sums.get(column, (0.0, 0))
        sums[column] = total + y, number + 1
    return [(column, total / number) for column, (total, number) in sorted(sums.items())]


def _scaled(value: float, bounds: tuple[float, float], steps: int) -> int:
    """``value`` between ``bounds`` as a whole number from 0 to ``steps - 1``; what lies outside goes to the edge."""
    low, high = bounds
    share = (value - low) / (high - low) if high > low else 0.0
    return min(steps - 1, max(0, round(share * (steps - 1))))


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest, never equal; a first tenth that would more than double the range is left out of it."""
    settled = values[len(values) // 10 :]
    low, high = min(settled), max(settled)
    whole_low, whole_high = min(values), max(values)
    if whole_high - whole_low <= 2 * (high - low):
        low, high = whole_low, whole_high
    return (low, high) if high - low > 1e-9 * max(1.0, abs(high)) else (low - 0.5, high + 0.5)


def _y_range(curves: Sequence[Curve], x_range: tuple[float, float], columns: int) -> tuple[float, float]:
    ranges = [
        _range([y for _, y in (curve.points if curve.marks else _columns(curve.points, x_range, columns))])
        for curve in curves
    ]
    lines = [found for found, curve in zip(ranges, curves, strict=True) if not curve.marks] or ranges
    # Marks may widen the range downwards only: the loss before the first step would flatten everything after it.
    return min(low for low, _ in ranges), max(high for _, high in lines)


class _Canvas:
    """A grid of dots, each cell of which belongs to the curve that was drawn there last."""

    def __init__(
        self, width: int, height: int, glyphs: Glyphs, *, x_range: tuple[float, float], y_range: tuple[float, float]
    ) -> None:
        self._width, self._height, self._glyphs = width, height, glyphs
        self._x_range, self._y_range = x_range, y_range
        self._bits = [[0] * width for _ in range(height)]
        self._owner: list[list[int | None]] = [[None] * width for _ in range(height)]
        self._marks: set[tuple[int, int]] = set()

    def line(self, points: Points, owner: int) -> None:
        columns = _columns(points, self._x_range, self._width * self._glyphs.dots_x)
        places = [(x, self._dot_y(y)) for x, y in columns]
        for start, end in zip(places, places[1:] or places, strict=False):
            self._stroke(start, end, owner)

    def mark(self, points: Points, owner: int) -> None:
        for x, y in points:
            cell = _scaled(x, self._x_range, self._width), self._dot_y(y) // self._glyphs.dots_y
            self._marks.add(cell)
            self._owner[cell[1]][cell[0]] = owner

    def rows(self, styles: Sequence[str]) -> list[Text]:
        return [self._row(y, styles) for y in range(self._height)]

    def _row(self, y: int, styles: Sequence[str]) -> Text:
        """Neighbours of one owner share a span: thousands of spans would make every repaint slow."""
        row = Text(no_wrap=True)
        for owner, cells in groupby(range(self._width), key=lambda x: self._owner[y][x]):
            text = "".join(self._cell(x, y) for x in cells)
            row.append(text, None if owner is None else styles[owner])
        return row

    def _cell(self, x: int, y: int) -> str:
        if self._owner[y][x] is None:
            return " "
        return self._glyphs.mark if (x, y) in self._marks else self._glyphs.dots[self._bits[y][x]]

    def _dot_y(self, value: float) -> int:
        low, high = self._y_range
        return _scaled(-value, (-high, -low), self._height * self._glyphs.dots_y)

    def _stroke(self, start: tuple[int, int], end: tuple[int, int], owner: int) -> None:
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
        for i in range(length + 1):
            x = start[0] + math.floor(i * (end[0] - start[0]) / length + 0.5)
            y = start[1] + math.floor(i * (end[1] - start[1]) / length + 0.5)
            self._dot(x, y, owner)

    def _dot(self, x: int, y: int, owner: int) -> None:
        (cell_x, dot_x), (cell_y, dot_y) = divmod(x, self._glyphs.dots_x), divmod(y, self._glyphs.dots_y)
        self._bits[cell_y][cell_x] |= 1 << (dot_x + dot_y * self._glyphs.dots_x)
        self._owner[cell_y][cell_x] = owner
