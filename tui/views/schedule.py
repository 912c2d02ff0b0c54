"""The parts of a schedule as a table."""

from __future__ import annotations

from rich.text import Text

from tui.draw import begun
from tui.look import Look
from tui.snapshot import Part, RunSnapshot
from tui.words import count, short

__all__ = ["schedule_text"]

_SIGNS = {"done": "finished", "active": "running", "failed": "failed", "skipped": "stopped"}


def schedule_text(run: RunSnapshot, look: Look) -> Text:
    """One row a part, under the name of its stage; a sentence for a run that learns all its text as one."""
    if not run.schedule:
        return Text(f"{run.name} has no schedule: it learns all its text as one part.", look.palette.dim)
    text, stage = Text(), None
    for part in run.schedule:
        if part.stage != stage:
            stage = part.stage
            text.append(f"{'' if not text.plain else chr(10) * 2}{stage or 'parts'}", f"bold {look.palette.accent}")
        text.append("\n").append_text(_row(part, look))
    return text


def _row(part: Part, look: Look) -> Text:
    state = _SIGNS.get(part.state, "new")
    row = begun(f"{look.glyphs.state(state)} ", look.palette.state(state)).append(f"{part.number:>3} ")
    row.append(part.name or part.source, "bold" if part.state == "active" else "")
    if part.source and part.source != part.name:
        row.append(f"  {part.source}", look.palette.dim)
    row.append(f"  {count(part.steps)} steps, {short(part.tokens)} tokens", look.palette.dim)
    if part.loss is not None:
        row.append(f", loss {part.loss:.3f}", look.palette.dim)
    if part.tries:
        row.append(f", {part.tries + 1}. try", look.palette.warn)
    if part.error and part.state in ("failed", "skipped"):
        row.append(f"\n      {part.error}", look.palette.warn if part.state == "failed" else look.palette.dim)
    return row
