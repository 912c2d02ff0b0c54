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
    """State, name, loss and its sparkline, progress and time left; words take the place of numbers nobody has."""
    row = _one_line(run, width, glyphs) if width >= WIDE else _two_lines(run, width, glyphs)
    row.no_wrap = True
    return row


def _one_line(run: RunSnapshot, width: int, glyphs: Glyphs) -> Text:
    numbers = f" {decimal(run.loss):>7} {percent(run.share):>6} "
    tail = 8 + 1 + 13  # bar, gap, time left
    room = width - len(numbers) - tail
    row = _head(run, min(32, room // 2 - 8), glyphs)
    if not run.loss_curve:
        return row.append(fit(_words(run), width - row.cell_len, glyphs.ellipsis), _words_style(run))
    curve = max(0, min(48, room - row.cell_len))
    row.append(f"{sparkline(run.loss_curve, curve, glyphs):<{curve}}", "cyan").append(numbers)
    return row.append_text(bar(run.share, 8, glyphs, "cyan")).append(f" {_left(run)}")


def _two_lines(run: RunSnapshot, width: int, glyphs: Glyphs) -> Text:
    row = _head(run, width - 2 - 1 - 10 - 6, glyphs).append(f"{percent(run.share):>6}\n")
    if not run.loss_curve:
        return row.append("  " + fit(_words(run), width - 2, glyphs.ellipsis), _words_style(run))
    tail = f" {decimal(run.loss):>6} {_left(run):<12}"
    curve = max(0, width - 2 - len(tail))
    return row.append(f"  {sparkline(run.loss_curve, curve, glyphs):<{curve}}", "cyan").append(tail)


def _words(run: RunSnapshot) -> str:
    if run.trouble:
        return run.trouble[0]
    return f"`ondevice train {run.name}` starts it" if run.state == "new" else "no loss yet"


def _words_style(run: RunSnapshot) -> str:
    return "red" if run.trouble else "dim"


def _head(run: RunSnapshot, name_width: int, glyphs: Glyphs) -> Text:
    name_width = max(6, name_width)
    style = STATE_STYLES.get(run.state, "")
    row = Text(f"{glyphs.state(run.state)} ", style, no_wrap=True)
    row.append(f"{fit(run.name, name_width, glyphs.ellipsis):<{name_width}} ", "bold")
    return row.append(f"{run.state:<10}", style)


def _left(run: RunSnapshot) -> str:
    if run.share_read < 1:
        return f"reading {percent(run.share_read)}"
    if run.trouble:
        return "!"
    return f"left {duration(run.eta_s)}" if run.alive and run.eta_s is not None else ""
