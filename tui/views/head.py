"""The head of a run: name, state, progress and time left, and the sentence that explains what keeps it."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from rich.text import Text

from tui.draw import bar, begun
from tui.look import Look
from tui.snapshot import RunSnapshot
from tui.words import clock, clock_short, count, duration, fit, percent, short

__all__ = ["head_rows", "head_text", "sentences"]

_MOST_LINES = 2


def head_text(run: RunSnapshot, width: int, height: int, look: Look) -> Text:
    """Name and state, step and time left, the bar; then at most two sentences."""
    if height < 3:
        return _one_line(run, width, look)
    text = _title(run, width, look).append("\n").append_text(_progress(run, width, look)).append("\n")
    style = look.palette.state(run.state)
    text.append_text(bar(run.share, width, look.glyphs, style, look.palette.dim))
    for line, colour in _lines(run, width, max(0, height - 3), look):
        text.append("\n").append(line, colour)
    return text


def head_rows(run: RunSnapshot, width: int, look: Look) -> int:
    """What `head_text` would fill."""
    return 3 + len(_lines(run, width, _MOST_LINES, look))


def _lines(run: RunSnapshot, width: int, most: int, look: Look) -> list[tuple[str, str]]:
    """The sentences in at most so many lines: a second one only below what the first needs."""
    lines: list[tuple[str, str]] = []
    for sentence, colour in list(sentences(run, look))[:most]:
        wrapped = wrap(" ".join(sentence.split()), max(8, width)) or [""]
        room = most - len(lines)
        if len(wrapped) > room > 0:
            wrapped = [*wrapped[: room - 1], fit(" ".join(wrapped[room - 1 :]), width, look.glyphs.ellipsis)]
        lines += [(line, colour) for line in wrapped[: max(0, room)]]
    return lines


def _one_line(run: RunSnapshot, width: int, look: Look) -> Text:
    words = f"{look.glyphs.state(run.state)} {run.name} {run.state} {percent(run.share)}"
    return Text(fit(words, width, look.glyphs.ellipsis), look.palette.state(run.state), no_wrap=True)


def _title(run: RunSnapshot, width: int, look: Look) -> Text:
    style = look.palette.state(run.state)
    beside = width - 4 - len(run.state)
    story = next((told for told in _stories(run) if beside - len(told) >= min(24, len(run.name)) + 2), "")
    name = fit(run.name, max(8, beside - len(story)), look.glyphs.ellipsis)
    text = begun(f"{look.glyphs.state(run.state)} ", style).append(name, "bold")
    text.append(f"  {run.state}", style)
    return text.append(story.rjust(max(0, width - text.cell_len)), look.palette.dim)


def _stories(run: RunSnapshot) -> Iterator[str]:
    """How often it began, in many words and in few."""
    if run.launches:
        kills = f"{run.kills} kill{'s' if run.kills != 1 else ''}" if run.kills else ""
        yield f"  launch {run.launches}" + (f", survived {kills}" if kills else "")
        yield f"  launch {run.launches}" + (f", {kills}" if kills else "")


def _progress(run: RunSnapshot, width: int, look: Look) -> Text:
    text = Text(f"step {count(run.step)}", no_wrap=True)
    if run.steps:
        text.append(f" of {count(run.steps)}", look.palette.dim)
    if run.share is not None:
        text.append(f"  {percent(run.share)}", "bold")
    if width >= 76 and run.tokens:
        total = f" of {short(run.tokens_total)}" if run.tokens_total else ""
        text.append(f"  {short(run.tokens)}{total} tokens", look.palette.dim)
    left = _left(run, wide=width >= 76)
    return text.append(left.rjust(width - text.cell_len) if len(left) + 1 <= width - text.cell_len else "")


def _left(run: RunSnapshot, *, wide: bool) -> str:
    if not run.alive or run.eta_s is None:
        return ""
    until = f", done at {clock_short(run.done_t)}" if wide and run.done_t is not None and run.eta_s < 86400 else ""
    return f"{duration(run.eta_s)} left{until}"


def sentences(run: RunSnapshot, look: Look) -> Iterator[tuple[str, str]]:
    """What a person should read first, with its style; the most urgent first."""
    palette = look.palette
    yield from ((sentence.removeprefix(f"{run.path}: "), palette.bad) for sentence in run.trouble)
    if run.recorded:
        yield run.recorded, palette.dim
    if run.share_read < 1:
        yield f"reading its story: {percent(run.share_read)}", palette.warn
    if run.state == "asleep":
        since = f" since {clock(run.silent_since_t)}" if run.silent_since_t is not None else ""
        yield f"silent{since}: the system froze the trainer", palette.cold
    if run.alive and (run.why or run.hold):
        until = f", until {clock_short(run.until_t)}" if run.until_t is not None else ""
        yield (run.why or run.hold) + until, palette.warn
    yield from _endings(run, look)
    if run.last_error and run.last_error not in (run.why, *run.trouble):
        yield run.last_error, palette.bad
    if run.simulated and not run.recorded:
        yield f"trains on a simulated device, {run.simulated}", palette.dim


def _endings(run: RunSnapshot, look: Look) -> Iterator[tuple[str, str]]:
    palette = look.palette
    if run.state == "killed":
        yield f"r goes on; {run.death or 'killed without a word'}", palette.bad
    elif run.state in ("stopped", "failed"):
        yield (f"{run.outcome}; " if run.outcome not in ("", run.state) else "") + "r goes on", palette.warn
    elif run.state == "new":
        yield "not started yet; r starts it", palette.warn
