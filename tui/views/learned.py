"""What was learned and kept: validation by source, and checkpoints with their marks."""

from __future__ import annotations

from rich.text import Text

from tui.draw import begun, sparkline
from tui.look import Look
from tui.snapshot import RunSnapshot, Saved
from tui.words import clock, count, decimal, fit, megabytes

__all__ = ["marks_text", "saves_text", "validation_text"]


def validation_text(run: RunSnapshot, width: int, height: int, look: Look) -> Text:
    """Loss of each source, the mixture first, and how it got there; then the best."""
    if not run.val:
        return Text("not measured yet", look.palette.dim)
    rows = sorted(run.val, key=lambda source: (source.name != "", source.name))
    best = run.best_step is not None and height >= 2
    shown = rows[: height - 1 if best else height]
    name_width = min(max(len(row.name or "mixture") for row in shown), max(6, width // 3))
    room = max(0, width - name_width - 10)
    text = Text(no_wrap=True)
    for number, row in enumerate(shown):
        name = fit(row.name or "mixture", name_width, look.glyphs.ellipsis)
        text.append("\n" if number else "").append(f"{name:<{name_width}} ", "" if row.name else "bold")
        text.append(f"{decimal(row.last, 4):>7}  ", look.palette.val)
        text.append(sparkline(row.curve, room, look.glyphs), look.palette.train)
    if best:
        said = f"{look.glyphs.best} {decimal(run.best_loss, 4)} at step {count(run.best_step)}"
        text.append("\n" + fit(said, width, look.glyphs.ellipsis), look.palette.good)
    return text


def saves_text(run: RunSnapshot, width: int, height: int, look: Look) -> Text:
    """Checkpoints, newest first."""
    if not run.saved:
        return Text("nothing saved yet", look.palette.dim)
    text = Text(no_wrap=True)
    for number, saved in enumerate(list(reversed(run.saved))[:height]):
        row = begun(f"{count(saved.step):>9} ", "bold").append_text(marks_text(saved, look))
        row.append(f"{decimal(saved.loss, 4):>8}", look.palette.val)
        for more in (f"  {clock(saved.t)}", f"  {megabytes(saved.size_mb)}", "  light" if saved.light else ""):
            if row.cell_len + len(more) <= width:
                row.append(more, look.palette.dim)
        text.append("\n" if number else "").append_text(row)
    return text


def marks_text(saved: Saved, look: Look) -> Text:
    """Two cells: best, pinned."""
    best = look.glyphs.best if saved.best or saved.best_quality else " "
    pin = look.glyphs.pin if saved.pinned else " "
    return Text(best, look.palette.good).append(pin, look.palette.accent)
