"""A run as one or two lines of the Runs screen."""

from __future__ import annotations

from rich.text import Text

from tui.draw import bar, begun, sparkline
from tui.look import Look
from tui.snapshot import RunSnapshot
from tui.views.head import sentences
from tui.views.heat import heat_style
from tui.views.machine import battery_text
from tui.words import clock_short, decimal, degrees, duration, fit, percent

__all__ = ["WIDE", "heads_text", "run_row"]

WIDE = 76  # columns from which a run fits one line
_LEAST = 28  # columns below which only state, share and name fit
_TAIL = 38  # loss, progress, bar, time left
_DEVICE = 14  # temperature, battery


def heads_text(width: int, look: Look) -> Text:
    """The titles above the columns; empty where a run takes two lines."""
    if width < WIDE:
        return Text("")
    name, curve, device = _widths(width)
    text = f"  {'run':<{name}} {'state':<10}{'':<{curve}}{'loss':>8} {'done':>6} {'':8}  {'left':<11}"
    return Text(text + (f"{'heat':>7}{'battery':>9}" if device else ""), look.palette.dim, no_wrap=True)


def run_row(run: RunSnapshot, width: int, look: Look, *, marked: bool = False) -> Text:
    """State, name, loss and its sparkline, progress, time left, heat and battery; a sentence takes the place of numbers
    nobody has."""
    if width < _LEAST:
        words = f"{look.glyphs.state(run.state)} {percent(run.share)} {run.name}"
        return Text(fit(words, width, look.glyphs.ellipsis), look.palette.state(run.state), no_wrap=True)
    row = _one_line(run, width, look) if width >= WIDE else _two_lines(run, width, look)
    if marked:
        row.stylize(f"bold {look.palette.accent}", 0, 2 + min(len(run.name), 24))
    row.no_wrap = True
    return row


def _widths(width: int) -> tuple[int, int, bool]:
    """Of the name, the sparkline, and whether the device has room."""
    device = width >= 100
    room = width - 2 - 1 - 10 - _TAIL - (_DEVICE + 2 if device else 0)
    name = max(8, min(28, room * 3 // 5))
    return name, max(0, room - name), device


def _one_line(run: RunSnapshot, width: int, look: Look) -> Text:
    name, curve, device = _widths(width)
    row = _head(run, name, look)
    said = _words(run, look)
    if said is not None and (not run.loss_curve or run.trouble):
        return row.append(fit(said[0], width - row.cell_len, look.glyphs.ellipsis), said[1])
    spark = sparkline(run.loss_curve, max(0, curve - 1), look.glyphs)
    row.append(f"{spark:<{curve}}", look.palette.train).append(f"{decimal(run.loss):>8} {percent(run.share):>6} ")
    row.append_text(bar(run.share, 8, look.glyphs, look.palette.state(run.state), look.palette.dim))
    left, style = _left(run, look)
    row.append(f"  {fit(left, 11, look.glyphs.ellipsis):<11}", style)
    return row.append_text(_device(run, look)) if device else row


def _device(run: RunSnapshot, look: Look) -> Text:
    heat = run.hottest if run.alive else None
    said = degrees(heat.now_c if heat else None, look.glyphs.degree)
    battery = f"{run.battery_percent:.0f}%{'+' if run.plugged else ''}" if run.battery_percent is not None else "-"
    style = battery_text(run, look).spans
    text = begun(f"{said:>7}", heat_style(heat, look))
    return text.append(
        f"{battery if run.alive else '-':>9}", style[0].style if style and run.alive else look.palette.dim
    )


def _two_lines(run: RunSnapshot, width: int, look: Look) -> Text:
    row = _head(run, width - 2 - 1 - 10 - 6, look).append(f"{percent(run.share):>6}\n")
    said = _words(run, look)
    if said is not None and (not run.loss_curve or run.trouble or run.why):
        return row.append("  " + fit(said[0], width - 2, look.glyphs.ellipsis), said[1])
    left, style = _left(run, look)
    device = _device(run, look).plain.split() if run.alive and run.hottest else []
    tail = f" {decimal(run.loss):>6} {left}" + (f" {device[0]}" if device and width >= 44 else "")
    curve = max(0, width - 2 - len(tail))
    return row.append(f"  {sparkline(run.loss_curve, curve, look.glyphs):<{curve}}", look.palette.train).append(
        tail, style
    )


def _words(run: RunSnapshot, look: Look) -> tuple[str, str] | None:
    return next(iter(sentences(run, look)), None) or (None if run.loss_curve else ("no loss yet", look.palette.dim))


def _head(run: RunSnapshot, name_width: int, look: Look) -> Text:
    name_width = max(6, name_width)
    style = look.palette.state(run.state)
    row = begun(f"{look.glyphs.state(run.state)} ", style)
    row.append(f"{fit(run.name, name_width, look.glyphs.ellipsis):<{name_width}} ", "bold")
    return row.append(f"{run.state:<10}", style)


def _left(run: RunSnapshot, look: Look) -> tuple[str, str]:
    """Time left, or until when it waits, or why it does not go on."""
    if run.share_read < 1:
        return f"reading {percent(run.share_read)}", look.palette.warn
    if run.state == "waiting" and run.until_t is not None:
        return f"until {clock_short(run.until_t)}", look.palette.warn
    if run.state == "asleep" and run.silent_since_t is not None:
        return f"since {clock_short(run.silent_since_t)}", look.palette.cold
    if run.alive and run.eta_s is not None:
        return duration(run.eta_s), ""
    return ("", "") if run.state != "killed" else ("r goes on", look.palette.bad)
