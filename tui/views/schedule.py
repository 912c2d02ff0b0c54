"""The parts of a schedule as a table."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from tui.draw import begun
from tui.look import Look
from tui.snapshot import Part, RunSnapshot
from tui.words import count, decimal, fit, short

__all__ = ["active_line", "schedule_text"]

_SIGNS = {"done": "finished", "active": "running", "failed": "failed", "skipped": "stopped"}
_WIDE = 50  # columns from which tokens have room
_FIGURES = 26  # cells beside the names: sign, number, steps, loss, tries; tokens take seven more
_TOLD = ("failed", "skipped")


def schedule_text(run: RunSnapshot, width: int, look: Look) -> Text:
    """How far it is, then one row a part, under the name of its stage; a sentence for a run without parts."""
    if not run.schedule:
        return Text(f"{run.name} has no schedule: it learns all its text as one part.", look.palette.dim)
    name, source = _widths(run.schedule, width)
    text = _summary(run.schedule, look).append("\n")
    tokens = f" {'tokens':>6}" if width >= _WIDE else ""
    heads = f"      {'part':<{name}} {'steps':>7}{tokens} {'loss':>7}{'      source' if source else ''}"
    text.append(heads, look.palette.dim)
    stage = None
    for part in run.schedule:
        if part.stage != stage:
            stage = part.stage
            text.append(f"\n{stage}", f"bold {look.palette.accent}")
        text.append("\n").append_text(_row(part, name, source, width, look))
        if part.error and part.state in _TOLD:
            style = look.palette.warn if part.state == "failed" else look.palette.dim
            text.append(f"\n      {fit(part.error, width - 6, look.glyphs.ellipsis)}", style)
    return text


def active_line(parts: Sequence[Part]) -> int:
    """The line of the part that is learned now, or of the first that is not done."""
    line, stage = 2, None
    for part in parts:
        line += part.stage != stage
        stage = part.stage
        if part.state not in ("done", "skipped"):
            return line
        line += 1 + bool(part.error and part.state in _TOLD)
    return line


def _widths(parts: Sequence[Part], width: int) -> tuple[int, int]:
    """Of the names, and of the sources where they tell more and have room."""
    room = max(8, width - _FIGURES - (7 if width >= _WIDE else 0))
    name = min(room, max(4, *(len(part.name or part.source) for part in parts)))
    differs = any(part.source not in ("", part.name) for part in parts)
    return name, room - name - 2 if differs and room - name >= 12 else 0


def _summary(parts: Sequence[Part], look: Look) -> Text:
    done = sum(part.state == "done" for part in parts)
    text = begun(f"{done} of {len(parts)} parts done", "bold")
    for state, style in (("failed", look.palette.bad), ("skipped", look.palette.warn)):
        if number := sum(part.state == state for part in parts):
            text.append(f", {number} {state}", style)
    return text


def _row(part: Part, name: int, source: int, width: int, look: Look) -> Text:
    state, dots = _SIGNS.get(part.state, "new"), look.glyphs.ellipsis
    row = begun(f"{look.glyphs.state(state)} ", look.palette.state(state)).append(
        f"{part.number:>3} ", look.palette.dim
    )
    row.append(f"{fit(part.name or part.source, name, dots):<{name}}", "bold" if part.state == "active" else "")
    row.append(f" {count(part.steps):>7}", look.palette.dim)
    row.append(f" {short(part.tokens):>6}" if width >= _WIDE else "", look.palette.dim)
    row.append(f" {decimal(part.loss):>7}", look.palette.val)
    row.append(f"{f' x{part.tries + 1}' if part.tries else '':<4}", look.palette.warn)
    if source:
        row.append(f"  {fit(part.source, source, dots)}", look.palette.dim)
    return row
