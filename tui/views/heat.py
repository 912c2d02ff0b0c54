"""Temperature against its limit and the duty that the governor allowed, on one time axis, with its sentence."""

from __future__ import annotations

from rich.text import Text

from tui.chart import Axes, Curve, chart, gutter_of
from tui.draw import begun, strip
from tui.look import Look, level
from tui.plots import Line
from tui.scale import x_labels
from tui.snapshot import Heat, RunSnapshot
from tui.views.loss import seen
from tui.views.window import Window
from tui.words import degrees, fit, percent

__all__ = ["heat_style", "heat_text", "heat_words"]

NEAR_C = 2.0
_AXES = ("time", "elapsed")
_ALL = Window()


def heat_text(run: RunSnapshot, width: int, height: int, look: Look, window: Window = _ALL) -> Text:
    """Thermometers and the sentence, the curve of the one nearest its limit, and the duty below it."""
    window = Window(axis=window.axis if window.axis in _AXES else "time", start=window.start, end=window.end)
    top = _thermometers(run, width, look)
    if height >= 8 and (said := _sentence(run)):
        top.append("\n").append(fit(said, width, look.glyphs.ellipsis), look.palette.dim)
    room = height - 1 - top.plain.count("\n")
    picture = _picture(run, width, room, look, window)
    return top.append("\n").append_text(picture) if picture.plain else top


def _sentence(run: RunSnapshot) -> str:
    if run.alive and run.why:
        return run.why
    return next((event.text for event in reversed(run.events) if event.group == "orders"), "")


def _thermometers(run: RunSnapshot, width: int, look: Look) -> Text:
    text = Text(no_wrap=True)
    for heat in run.heat if run.alive else ():
        item = heat_words(heat, look)
        if text.cell_len + item.cell_len + 2 <= width:
            text.append("  " if text.cell_len else "").append_text(item)
    if not text.cell_len:
        words = "no thermometer can be read here" if run.alive else "nobody measures while no trainer lives"
        text.append(fit(words, width, look.glyphs.ellipsis), look.palette.dim)
    duty = f"duty {percent(run.duty)}" if run.duty is not None and run.alive else ""
    if duty and text.cell_len + len(duty) + 2 <= width:
        text.append(duty.rjust(width - text.cell_len), look.palette.accent)
    return text


def heat_words(heat: Heat, look: Look) -> Text:
    """``battery 41.2°C of 40 !``: coloured by its limit, with a mark beyond it."""
    style = heat_style(heat, look)
    text = begun(f"{heat.label} ", look.palette.dim).append(degrees(heat.now_c, look.glyphs.degree), style)
    if heat.limit_c is not None:
        text.append(f" of {heat.limit_c:g}", look.palette.dim)
    over = heat.over_c
    return text.append(" !", style) if over is not None and over > 0 else text


def heat_style(heat: Heat | None, look: Look) -> str:
    return level(heat.now_c, heat.limit_c, near=NEAR_C, palette=look.palette) if heat else ""


def _picture(run: RunSnapshot, width: int, height: int, look: Look, window: Window) -> Text:
    heat, plots = run.hottest, run.plots
    name = heat.name if heat else next((n for n in ("battery_c", "skin_c", "cpu_c") if n in plots.names), "")
    extents = [extent for n in (name, "duty") if n and (extent := plots.extent(n, x=window.axis))]
    if not extents or height < 3:
        return Text("")
    worked = plots.extent("loss", x=window.axis) or extents[0]  # readings are rare, and what they told holds until now
    first, last = window.of(min(low for low, _ in extents), max(high for _, high in (*extents, worked)))
    last = last if last > first else first + 1.0
    duty = seen(run, "duty", window, first, last)
    rows = (2 if height >= 9 else 1) if duty else 0
    curve = Curve(name=name, line=seen(run, name, window, first, last), style=look.palette.val)
    if not curve.line:
        tall = max(1, min(3, height - 1))
        text = _strip(duty, (first, last), width, tall, look, gutter=5)
        return text.append("\n" + x_labels((first, last), window.axis, 5, width), look.palette.dim)
    curves = [_limit(heat, curve, look), curve] if heat and heat.limit_c is not None else [curve]
    axes = Axes(x=window.axis, x_range=(first, last), least_gutter=5 if rows else 0)
    picture = chart(curves, width=width, height=height - rows, axes=axes, look=look)
    if not rows or not picture.plain:
        return picture
    gutter = gutter_of(picture, look)
    return picture.append("\n").append_text(_strip(duty, (first, last), width, rows, look, gutter=gutter))


def _limit(heat: Heat, curve: Curve, look: Look) -> Curve:
    assert heat.limit_c is not None
    return Curve(name="limit", line=Line([curve.line.xs[0]], [heat.limit_c]), style=look.palette.bad, kind="level")


def _strip(duty: Line, ends: tuple[float, float], width: int, rows: int, look: Look, *, gutter: int) -> Text:
    text = Text(no_wrap=True)
    for number, row in enumerate(strip(duty.xs, duty.ys, ends, max(1, width - gutter), rows, look.glyphs)):
        label = "duty" if number == rows - 1 else ""
        text.append("\n" if number else "").append(f"{label[: gutter - 1]:>{gutter - 1}} ", look.palette.dim)
        text.append(row, look.palette.accent)
    return text
