"""A run as one or two lines of the Runs screen. Pure: snapshot and width in, Text out."""

from __future__ import annotations

from rich.text import Text

from tui.draw import Glyphs, bar, sparkline
from tui.snapshot import RunSnapshot
from tui.words import decimal, duration, fit, percent

__all__ = ["STATE_STYLES", "WIDE", "run_row"]

WIDE = 80  # columns from which a run fits one line

STATE_STYLES = {
    "running": "bold green",
    "resting": "yellow",
    "waiting": "yellow",
    "asleep": "blue",
    "finished": "green",
    "failed": "bold red",
    "killed": "bold red",
    "unknown": "bold red",
    "gone": "bold red",
}


def run_row(run: RunSnapshot, width: int, glyphs: Glyphs) -> Text:
    """State, name, loss and its sparkline, progress and time left; what is wrong takes the place of the numbers."""
    if width >= WIDE:
        return _one_line(run, width, glyphs)
    return _two_lines(run, width, glyphs)


def _one_line(run: RunSnapshot, width: int, glyphs: Glyphs) -> Text:
    room = width - 63
    row = _head(run, max(12, min(32, room // 2 + 12)), 9, glyphs)
    row.append("  ")
    rest = width - row.cell_len
    if run.trouble and not run.loss_curve:
        return row.append(fit(run.trouble[0], rest, glyphs.ellipsis), "red")
    curve = min(40, max(8, rest - 33))
    row.append(f"{sparkline(run.loss_curve, curve, glyphs):<{curve}}", "cyan")
    row.append(f" {decimal(run.loss):>7} {percent(run.share):>6} ")
    row.append(bar(run.share, 8, glyphs), "cyan").append(" ")
    return row.append(_left(run)[: max(0, width - row.cell_len)])


def _two_lines(run: RunSnapshot, width: int, glyphs: Glyphs) -> Text:
    row = _head(run, max(6, width - 3 - 9 - 7), 9, glyphs).append(f"{percent(run.share):>7}\n")
    if run.trouble and not run.loss_curve:
        return row.append("  " + fit(run.trouble[0], width - 2, glyphs.ellipsis), "red")
    tail = f" {decimal(run.loss):>6} {_left(run)}"
    curve = max(4, width - 2 - max(len(tail), 16))
    return row.append(f"  {sparkline(run.loss_curve, curve, glyphs):<{curve}}", "cyan").append(tail)


def _head(run: RunSnapshot, name_width: int, state_width: int, glyphs: Glyphs) -> Text:
    style = STATE_STYLES.get(run.state, "")
    row = Text(f"{glyphs.state(run.state)} ", style, no_wrap=True)
    row.append(f"{fit(run.name, name_width, glyphs.ellipsis):<{name_width}} ", "bold")
    return row.append(f"{run.state:<{state_width}}", style)


def _left(run: RunSnapshot) -> str:
    if run.share_read < 1:
        return f"reading {percent(run.share_read)}"
    if run.trouble:
        return "!"
    return f"left {duration(run.eta_s)}" if run.alive and run.eta_s is not None else ""
