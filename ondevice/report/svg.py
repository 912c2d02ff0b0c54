"""A chart as SVG: axes with round ticks, lines, bands of spread, marks. Small enough to read on 360 pixels.

Colours are classes that the page's style sheet gives, so that they follow its dark mode. Knows nothing of reports.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from ondevice.report.page import Chart, Curve, plain

__all__ = ["chart_svg", "ticks"]

WIDTH, HEIGHT = 360, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 16, 8, 34
COLOURS = 8


def chart_svg(chart: Chart) -> str:
    """The drawing alone; title and legend are the page's."""
    xs = [_x(chart, x) for curve in chart.curves for x, _ in curve.points]
    ys = [y for curve in chart.curves for y in _heights(curve)]
    frame = _Frame(min(xs), max(xs), min(ys), max(ys))
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(plain(chart.title), quote=True)}">',
        *_axes(chart, frame),
        *(_band(curve, chart, frame, place) for place, curve in enumerate(chart.curves) if curve.band),
        *(_line(curve, chart, frame, place) for place, curve in enumerate(chart.curves)),
        *(_mark(name, _x(chart, x), y, frame) for name, x, y in chart.marks),
        "</svg>",
    ]
    return "".join(parts)


def _x(chart: Chart, x: float) -> float:
    return math.log10(x) if chart.log_x else x


def _heights(curve: Curve) -> Iterable[float]:
    yield from (y for _, y in curve.points)
    for _, low, high in curve.band:
        yield from (low, high)


class _Frame:
    """Where a value stands on the drawing; a flat curve gets room around it."""

    def __init__(self, x0: float, x1: float, y0: float, y1: float) -> None:
        pad = (y1 - y0) * 0.05 or abs(y1) * 0.05 or 1.0
        self.x0, self.x1, self.y0, self.y1 = x0, x1 if x1 > x0 else x0 + 1.0, y0 - pad, y1 + pad

    def across(self, x: float) -> float:
        return LEFT + (x - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def down(self, y: float) -> float:
        return TOP + (self.y1 - y) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` round values within the bounds.

    >>> ticks(0.0, 10.0)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    size = 10.0 ** math.floor(math.log10(span / count))
    step = next(size * factor for factor in (1, 2, 5, 10) if span / (size * factor) <= count)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(k * step, 12) for k in range(first, last + 1)]


def _axes(chart: Chart, frame: _Frame) -> Iterable[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for y in ticks(frame.y0, frame.y1):
        at = frame.down(y)
        yield f'<line class="grid" x1="{LEFT}" y1="{at:.1f}" x2="{right}" y2="{at:.1f}"/>'
        yield f'<text x="{LEFT - 4}" y="{at + 3.5:.1f}" text-anchor="end">{_figure(y)}</text>'
    for x in _x_ticks(chart, frame):
        at = frame.across(x)
        shown = _figure(10.0**x) if chart.log_x else _figure(x)
        yield f'<line class="grid" x1="{at:.1f}" y1="{bottom}" x2="{at:.1f}" y2="{bottom + 3}"/>'
        yield f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{shown}</text>'
    yield f'<line class="axis" x1="{LEFT}" y1="{bottom}" x2="{right}" y2="{bottom}"/>'
    middle = (LEFT + right) / 2
    yield f'<text x="{middle:.0f}" y="{HEIGHT - 5}" text-anchor="middle">{escape(plain(chart.x))}</text>'


def _x_ticks(chart: Chart, frame: _Frame) -> list[float]:
    if chart.log_x:
        whole = [float(k) for k in range(math.ceil(frame.x0), math.floor(frame.x1) + 1)]
        return whole or [frame.x0, frame.x1]
    few = ticks(frame.x0, frame.x1, 4)
    return few if len(few) > 2 else ticks(frame.x0, frame.x1, 5)  # steps from 1 to 967 would have 500 alone


def _figure(value: float) -> str:
    """``12500 -> '12.5k'``, short enough for an axis."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def _line(curve: Curve, chart: Chart, frame: _Frame, place: int) -> str:
    return f'<polyline class="c{place % COLOURS}" points="{_path(_points(curve, chart), frame)}"/>'


def _points(curve: Curve, chart: Chart) -> list[tuple[float, float]]:
    return [(_x(chart, x), y) for x, y in curve.points]


def _band(curve: Curve, chart: Chart, frame: _Frame, place: int) -> str:
    edge = [(_x(chart, x), high) for x, _, high in curve.band]
    edge += [(_x(chart, x), low) for x, low, _ in reversed(curve.band)]
    return f'<polygon class="b{place % COLOURS}" points="{_path(edge, frame)}"/>'


def _path(points: Sequence[tuple[float, float]], frame: _Frame) -> str:
    return " ".join(f"{frame.across(x):.1f},{frame.down(y):.1f}" for x, y in points)


def _mark(name: str, x: float, y: float, frame: _Frame) -> str:
    across, down = frame.across(x), frame.down(y)
    near_end = across > WIDTH * 0.7
    anchor, shift = ("end", -6) if near_end else ("start", 6)
    at = f'x="{across + shift:.1f}" y="{down - 6:.1f}" text-anchor="{anchor}"'
    circle = f'<circle class="mark" cx="{across:.1f}" cy="{down:.1f}" r="3.5"/>'
    return f'{circle}<text class="mark" {at}>{escape(plain(name))}</text>'
