"""Checkpoints as rows of a table, and the sample that belongs to one."""

from __future__ import annotations

from rich.text import Text

from tui.draw import begun
from tui.look import Look
from tui.snapshot import RunSnapshot, Sample, Saved
from tui.views.learned import marks_text
from tui.views.story import written_text
from tui.words import clock, count, decimal, fit, megabytes, printable

__all__ = ["nearest_sample", "saved_heads", "saved_row", "step_sample_text"]


def saved_heads(run: RunSnapshot, width: int, look: Look) -> Text:
    """The titles above `saved_row`."""
    if not run.saved:
        return Text("Nothing is saved yet; the first checkpoint comes with the next save.", look.palette.dim)
    text = Text(f"{'step':>10}    {'mixture':>8}", look.palette.dim, no_wrap=True)
    for name in _sources(run, width):
        text.append(f" {fit(name, 9, look.glyphs.ellipsis):>9}")
    if width >= 60:
        text.append(f" {'quality':>8} {'saved':>9} {'size':>9}")
    return text


def _sources(run: RunSnapshot, width: int) -> list[str]:
    """The sources that have room for a column."""
    names = sorted({name for saved in run.saved for name, _ in saved.losses if name})
    room = width - 23 - (30 if width >= 60 else 0)
    return names[: max(0, room // 10)]


def saved_row(run: RunSnapshot, saved: Saved, width: int, look: Look, *, marked: bool) -> Text:
    losses = dict(saved.losses)
    text = begun(f"{look.glyphs.right if marked else ' '}", look.palette.accent)
    text.append(f"{count(saved.step):>9} ", "bold").append_text(marks_text(saved, look)).append(" ")
    text.append(f"{decimal(saved.loss, 4):>8}", look.palette.good if saved.best else look.palette.val)
    for name in _sources(run, width):
        text.append(f" {decimal(losses.get(name), 4):>9}")
    if width >= 60:
        text.append(f" {decimal(saved.quality, 1):>8}", look.palette.good if saved.best_quality else "")
        text.append(f" {clock(saved.t):>9} {megabytes(saved.size_mb):>9}", look.palette.dim)
    why = "  light" if saved.light else f"  {saved.pinned}" if saved.pinned else ""
    room = width - text.cell_len
    return text.append("  " + fit(why, room - 2, look.glyphs.ellipsis) if why and room > 6 else "", look.palette.accent)


def step_sample_text(run: RunSnapshot, step: int | None, written: tuple[str, str] | None, look: Look) -> Text:
    """What was generated from it here, else the sample of the training that is nearest to it."""
    if step is None:
        return Text("choose a checkpoint above", look.palette.dim)
    if written is not None:
        prompt, text = written
        return begun(printable(prompt), f"bold {look.palette.accent}").append(printable(text), "")
    sample = nearest_sample(run, step)
    if sample is None:
        return Text("no sample was written; g generates from this checkpoint", look.palette.dim)
    return written_text(sample, look)


def nearest_sample(run: RunSnapshot, step: int) -> Sample | None:
    """What the training wrote nearest to that step; the latest of several."""
    return min(reversed(run.samples), key=lambda sample: abs(sample.step - step), default=None)
