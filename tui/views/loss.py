"""The loss plot: every step as a band, its mean as a line, validation as marks or, by source, as lines."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from tui.chart import Axes, Curve, chart
from tui.look import Look
from tui.plots import Line
from tui.snapshot import RunSnapshot
from tui.views.window import Window
from tui.words import decimal, fit

__all__ = ["legend_line", "loss_text", "seen"]

_POINTS = 1200
_ALL = Window()


def loss_text(run: RunSnapshot, width: int, height: int, look: Look, window: Window = _ALL) -> Text:
    """A legend with the last values, then the chart."""
    extent = run.plots.extent("loss", x=window.axis) or run.plots.extent("val:", x=window.axis)
    if extent is None:
        return Text("no loss yet", look.palette.dim)
    first, last = window.of(*extent)
    palette = look.palette
    *sources, mixture = _validation(run, look, window, first, last)
    curves = [
        Curve(name="", line=seen(run, "loss", window, first, last), style=palette.raw, kind="band"),
        *sources,
        Curve(name="train", line=seen(run, "loss_smooth", window, first, last), style=palette.train),
        mixture,
    ]
    axes = Axes(x=window.axis, log=window.log, x_range=(first, last) if last > first else None)
    legend = legend_line([*curves[-2:], *sources], width, look)
    picture = chart(curves, width=width, height=height - (1 if height >= 7 else 0), axes=axes, look=look)
    return legend.append("\n").append_text(picture) if height >= 7 else picture


def _validation(run: RunSnapshot, look: Look, window: Window, first: float, last: float) -> list[Curve]:
    sources = [source.name for source in run.val if source.name]
    curves = []
    if 2 <= len(sources) <= 5:
        styles = look.palette.curves[2:]
        for name, style in zip(sources, styles, strict=False):
            line = seen(run, f"val:{name}", window, first, last)
            curves.append(Curve(name=name, line=line, style=style))
    mixture = seen(run, "val:", window, first, last)
    return [*curves, Curve(name="val", line=mixture, style=f"bold {look.palette.val}", kind="marks")]


def seen(run: RunSnapshot, name: str, window: Window, first: float, last: float) -> Line:
    """The part of a curve that the window shows."""
    if window.whole:
        return run.plots.series(name, x=window.axis, max_points=_POINTS)
    return run.plots.series(name, x=window.axis, start=first, end=last, max_points=_POINTS)


def legend_line(curves: Sequence[Curve], width: int, look: Look) -> Text:
    """``─ train 1.712  ◆ val 1.834``: as many as fit."""
    text = Text(no_wrap=True)
    for curve in curves:
        if not curve.line or not curve.name:
            continue
        sign = look.glyphs.mark if curve.kind == "marks" else look.glyphs.full
        item = f"{sign} {fit(curve.name, 14, look.glyphs.ellipsis)} {decimal(curve.line.ys[-1], 3)}"
        if text.cell_len + len(item) + 2 > width:
            break
        text.append("  " if text.cell_len else "").append(item, curve.style)
    return text
