"""Several runs on one plot, and in a table of their last figures."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from tui.chart import Axes, Curve, chart
from tui.draw import begun
from tui.look import Look
from tui.snapshot import RunSnapshot
from tui.views.loss import legend_line, seen
from tui.views.window import Window
from tui.words import count, decimal, fit, percent, short

__all__ = ["WHAT", "compare_text", "table_text"]

WHAT = ("loss", "validation loss", "tokens a second", "gradient norm")
_NAMES = {"loss": "loss_smooth", "validation loss": "val:", "tokens a second": "tok_s", "gradient norm": "grad_norm"}


def compare_text(
    runs: Sequence[RunSnapshot], width: int, height: int, look: Look, window: Window, *, what: str = WHAT[0]
) -> Text:
    """A legend, then one curve a run; time counts from each run's beginning."""
    name = _NAMES[what]
    axis = "elapsed" if window.axis == "time" else window.axis
    window = Window(axis=axis, log=window.log, start=window.start, end=window.end)
    extents = [extent for run in runs if (extent := run.plots.extent(name, x=axis))]
    if not extents:
        return Text(f"no {what} to compare yet; space on the Runs screen marks runs", look.palette.dim)
    first, last = window.of(min(low for low, _ in extents), max(high for _, high in extents))
    styles = look.palette.curves
    curves = [
        Curve(name=run.name, line=seen(run, name, window, first, last), style=styles[number % len(styles)])
        for number, run in enumerate(runs)
    ]
    axes = Axes(x=axis, log=window.log, x_range=(first, last) if last > first else None)
    legend = legend_line(curves, width, look)
    return legend.append("\n").append_text(chart(curves, width=width, height=height - 1, axes=axes, look=look))


def table_text(runs: Sequence[RunSnapshot], width: int, look: Look) -> Text:
    """One row a run: its colour, state, steps, losses and rate."""
    if not runs:
        return Text("There is no run with a loss yet.", look.palette.dim)
    name = max(8, min(28, width - 30))
    heads = f"  {'run':<{name}} {'step':>8} {'loss':>8} {'best':>8}"
    more = width >= name + 73
    text = begun(heads + (f" {'done':>7} {'tokens':>8} {'sustained':>9}  state" if more else ""), look.palette.dim)
    for number, run in enumerate(runs):
        style = look.palette.curves[number % len(look.palette.curves)]
        text.append(f"\n{look.glyphs.full} {fit(run.name, name, look.glyphs.ellipsis):<{name}}", style)
        text.append(f" {count(run.step):>8} {decimal(run.loss):>8} {decimal(run.best_loss):>8}")
        if more:
            text.append(f" {percent(run.share):>7} {short(run.tokens):>8} {short(run.tok_s_sustained):>9}  ")
            text.append(run.state, look.palette.state(run.state))
    return text
