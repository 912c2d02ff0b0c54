"""Curves over a common x as a picture of characters: a line, a band, marks, or a level. Pure; knows Rich's Text only.

Legend: a cell is one character; a dot is a part of a cell (2 x 4 in braille, 1 x 2 in ASCII).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.text import Text

from tui.draw import columns, settled_range
from tui.look import DARK, UNICODE, Look
from tui.plots import Line
from tui.scale import Range, x_labels, y_ticks

__all__ = ["Axes", "Curve", "chart", "gutter_of", "x_range_of"]

_TALL = 9  # rows from which the x axis has a line of its own


@dataclass(frozen=True, kw_only=True)
class Curve:
    """``kind``: a ``line`` through the means, a ``band`` between the extremes, ``marks``, or a ``level`` across."""

    name: str
    line: Line
    style: str = ""
    kind: str = "line"


@dataclass(frozen=True, kw_only=True)
class Axes:
    """``x`` is one of `tui.plots.AXES`; ``x_range`` is what to see of it, all where None.

    ``least_gutter``: cells for the labels on the left, axis included, where another row needs so many.
    """

    x: str = "steps"
    log: bool = False
    x_range: Range | None = None
    y_range: Range | None = None
    least_gutter: int = 0


_ALL, _USUAL = Axes(), Look(UNICODE, DARK)


def chart(curves: Sequence[Curve], *, width: int, height: int, axes: Axes = _ALL, look: Look = _USUAL) -> Text:
    """Exactly ``height`` rows of at most ``width`` cells; empty without points or room."""
    curves = [curve for curve in (_logged(curve) if axes.log else curve for curve in curves) if curve.line]
    if not curves or width < 16 or height < 3:
        return Text("")
    x_range = axes.x_range or x_range_of(curves)
    y_range = axes.y_range or _y_range(curves, x_range, width)
    glyphs, dim, rows = look.glyphs, look.palette.dim, height - (2 if height >= _TALL else 1)
    ticks = y_ticks(y_range, rows, log=axes.log)
    gutter = max(axes.least_gutter, max(map(len, ticks.values()), default=0) + 1)
    canvas = _Canvas(width - gutter, rows, look, x_range=x_range, y_range=y_range)
    for number, curve in enumerate(curves):
        canvas.draw(curve, number)
    text = Text(no_wrap=True)
    for y, row in enumerate(canvas.rows([curve.style for curve in curves])):
        label = ticks.get(y, "")
        text.append(f"{label:>{gutter - 1}}{glyphs.tick if label else glyphs.axis}", dim).append_text(row).append("\n")
    if height >= _TALL:
        text.append(" " * (gutter - 1) + glyphs.corner + glyphs.floor * (width - gutter) + "\n", dim)
    return text.append(x_labels(x_range, axes.x, gutter, width), dim)


def x_range_of(curves: Sequence[Curve]) -> Range:
    """What all curves but the levels span."""
    lines = [curve.line for curve in curves if curve.kind != "level" and curve.line] or [curves[0].line]
    return min(line.xs[0] for line in lines), max(line.xs[-1] for line in lines)


def gutter_of(picture: Text, look: Look) -> int:
    """Cells left of the canvas in a chart, axis included."""
    first = picture.plain.split("\n", 1)[0]
    return 1 + max(first.find(look.glyphs.axis), first.find(look.glyphs.tick))


def _logged(curve: Curve) -> Curve:
    kept = [(x, math.log10(y)) for x, y in zip(curve.line.xs, curve.line.ys, strict=True) if y > 0]
    line = Line([x for x, _ in kept], [y for _, y in kept])
    return Curve(name=curve.name, line=line, style=curve.style, kind=curve.kind)


def _y_range(curves: Sequence[Curve], x_range: Range, width: int) -> Range:
    """Lines and marks decide; a band is noise around a line and may be cut off. Marks widen downwards only: the loss
    before the first step would flatten everything after it."""
    ranges = {}
    for number, curve in enumerate(curves):
        seen = [
            (x, y) for x, y in zip(curve.line.xs, curve.line.ys, strict=True) if x_range[0] <= x <= x_range[1]
        ] or list(zip(curve.line.xs, curve.line.ys, strict=True))
        ys = [y for _, y in seen]
        if curve.kind in ("line", "band"):
            ys = [y for _, y in columns([x for x, _ in seen], ys, x_range, width)]
        ranges[number] = settled_range(ys)
    lines = [ranges[n] for n, curve in enumerate(curves) if curve.kind in ("line", "level")]
    lines = lines or [ranges[n] for n, curve in enumerate(curves) if curve.kind == "band"] or list(ranges.values())
    marks = [ranges[n] for n, curve in enumerate(curves) if curve.kind == "marks"]
    low, high = min(low for low, _ in (*lines, *marks)), max(high for _, high in lines)
    if high <= low:
        high = low + 1.0
    margin = 0.04 * (high - low)
    return low - margin, high + margin


class _Canvas:
    """A grid of dots, each cell of which belongs to the curve that was drawn there last."""

    def __init__(self, width: int, height: int, look: Look, *, x_range: Range, y_range: Range) -> None:
        self._width, self._height, self._glyphs = width, height, look.glyphs
        self._dots_w, self._dots_h = width * look.glyphs.dots_x, height * look.glyphs.dots_y
        self._x_range, self._y_range = x_range, y_range
        self._bits = [[0] * width for _ in range(height)]
        self._owner: list[list[int | None]] = [[None] * width for _ in range(height)]
        self._marks: dict[tuple[int, int], str] = {}

    def draw(self, curve: Curve, owner: int) -> None:
        if curve.kind == "level":
            self._level(curve.line.ys[-1], owner)
            return
        low, high = self._x_range
        seen = [(x, y) for x, y in zip(curve.line.xs, curve.line.ys, strict=True) if low <= x <= high]
        {"band": self._band, "marks": self._mark}.get(curve.kind, self._line)(seen, owner)

    def _line(self, points: Sequence[tuple[float, float]], owner: int) -> None:
        means = columns([x for x, _ in points], [y for _, y in points], self._x_range, self._dots_w)
        places = [(x, self._dot_y(y)) for x, y in means]
        sides = [(y > self._y_range[1]) - (y < self._y_range[0]) for _, y in means]
        for index, (start, end) in enumerate(zip(places, places[1:] or places, strict=False)):
            if not sides[index] or sides[index] != sides[min(index + 1, len(sides) - 1)]:
                self._stroke(start, end, owner)

    def _band(self, points: Sequence[tuple[float, float]], owner: int) -> None:
        """From the lowest to the highest point of every column of dots."""
        spans: dict[int, tuple[float, float]] = {}
        for x, y in points:
            column = self._dot_x(x)
            low, high = spans.get(column, (y, y))
            spans[column] = min(low, y), max(high, y)
        bottom, top = self._y_range
        for column, (low, high) in spans.items():
            if high >= bottom and low <= top:
                for y in range(self._dot_y(high), self._dot_y(low) + 1):
                    self._dot(column, y, owner)

    def _mark(self, points: Sequence[tuple[float, float]], owner: int) -> None:
        for x, y in points:
            self._put(self._dot_x(x) // self._glyphs.dots_x, self._dot_y(y), self._glyphs.mark, owner)

    def _level(self, value: float, owner: int) -> None:
        if self._y_range[0] <= value <= self._y_range[1]:
            for x in range(self._width):
                self._put(x, self._dot_y(value), self._glyphs.level, owner)

    def _put(self, cell_x: int, dot_y: int, character: str, owner: int) -> None:
        cell_y = dot_y // self._glyphs.dots_y
        self._marks[cell_x, cell_y] = character
        self._owner[cell_y][cell_x] = owner

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
        return self._marks.get((x, y)) or self._glyphs.dots[self._bits[y][x]]

    def _dot_x(self, value: float) -> int:
        return _scaled(value, self._x_range, self._dots_w)

    def _dot_y(self, value: float) -> int:
        low, high = self._y_range
        return _scaled(-value, (-high, -low), self._dots_h)

    def _stroke(self, start: tuple[int, int], end: tuple[int, int], owner: int) -> None:
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]), 1)
        for i in range(length + 1):
            x = start[0] + math.floor(i * (end[0] - start[0]) / length + 0.5)
            y = start[1] + math.floor(i * (end[1] - start[1]) / length + 0.5)
            self._dot(x, y, owner)

    def _dot(self, x: int, y: int, owner: int) -> None:
        (cell_x, dot_x), (cell_y, dot_y) = divmod(x, self._glyphs.dots_x), divmod(y, self._glyphs.dots_y)
        bit = 1 << (dot_x + dot_y * self._glyphs.dots_x)
        if self._owner[cell_y][cell_x] not in (owner, None):
            self._bits[cell_y][cell_x] = 0  # a cell has one colour: the line on top is seen whole
            self._marks.pop((cell_x, cell_y), None)
        self._bits[cell_y][cell_x] |= bit
        self._owner[cell_y][cell_x] = owner


def _scaled(value: float, bounds: Range, steps: int) -> int:
    """``value`` between ``bounds`` as a whole number from 0 to ``steps - 1``; what lies outside goes to the edge."""
    low, high = bounds
    share = (value - low) / (high - low) if high > low else 0.0
    return min(steps - 1, max(0, round(min(1.0, max(0.0, share)) * (steps - 1))))
