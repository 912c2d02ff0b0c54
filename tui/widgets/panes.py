"""The panes of the Watch screen: each is a title and a pure function from a run and a width to Text."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.text import Text
from textual.widgets import Static

from tui.draw import Glyphs, bar, sparkline
from tui.snapshot import RunSnapshot
from tui.widgets.any_width import AnyWidth
from tui.widgets.rows import STATE_STYLES
from tui.words import clock, count, decimal, duration, fit, megabytes, percent

__all__ = ["Pane", "events_text", "facts_text", "head_text", "samples_text", "validation_text"]

PaneText = Callable[[RunSnapshot, int, Glyphs], Text]

_AT_STEP = frozenset({"eval", "checkpoint", "note", "fit"})
_EVENT_STYLES = {"killed": "bold red", "note": "yellow", "eval": "cyan", "checkpoint": "green", "end": "bold"}


class Pane(Static):
    """Shows what its function says of a run at whatever width it has; paints again only when that changed."""

    def __init__(self, text: PaneText, glyphs: Glyphs, *, title: str = "", id: str | None = None) -> None:
        super().__init__("", id=id)
        self._text, self._glyphs = text, glyphs
        self._run: RunSnapshot | None = None
        self._said: Text | None = None
        self.border_title = title

    def show(self, run: RunSnapshot) -> None:
        """Paints the run."""
        self._run = run
        width = self.content_size.width
        said = self._say(width or 80)
        if said != self._said:
            self.update(AnyWidth(self._say), layout=_lines(said, width) != _lines(self._said, width))
            self._said = said

    def _say(self, width: int) -> Text:
        return self._text(self._run, width, self._glyphs) if self._run else Text("")


def _lines(text: Text | None, width: int) -> object:
    """Height at that width; something unequal to all else where a line wraps and only a new layout can tell."""
    if text is None or any(len(line) > width for line in text.plain.split("\n")):
        return object()
    return text.plain.count("\n")


def head_text(run: RunSnapshot, width: int, glyphs: Glyphs) -> Text:
    """Name and state, then step and progress, then the bar, then what keeps the run or what is wrong with it."""
    style = STATE_STYLES.get(run.state, "")
    story = _story(run)
    name = fit(run.name, max(8, width - 4 - len(run.state) - (len(story) + 2 if width >= 60 else 0)), glyphs.ellipsis)
    text = Text(f"{glyphs.state(run.state)} ", style).append(name, "bold").append(f"  {run.state}", style)
    if width >= 60:
        text.append(story.rjust(width - text.cell_len), "dim")
    text.append("\n").append_text(_progress(run, width)).append("\n")
    text.append_text(bar(run.share, width, glyphs, style or "cyan"))
    for sentence, colour in _sentences(run):
        text.append("\n").append(fit(sentence, 3 * width, glyphs.ellipsis), colour)
    return text


def _story(run: RunSnapshot) -> str:
    if not run.launches:
        return ""
    kills = f", {run.kills} survived kill{'s' if run.kills != 1 else ''}" if run.kills else ""
    return f"launch {run.launches}{kills}"


def _progress(run: RunSnapshot, width: int) -> Text:
    text = Text(f"step {count(run.step)}", "bold")
    if run.steps:
        text.append(f" of {count(run.steps)}")
    text.append(f"   {percent(run.share)}" if run.share is not None else "", "bold")
    left = f"left {duration(run.eta_s)}" if run.alive and run.eta_s is not None else ""
    return text.append(left.rjust(max(0, width - text.cell_len)) if len(left) + 1 < width - text.cell_len else "")


def _sentences(run: RunSnapshot) -> Iterable[tuple[str, str]]:
    if run.share_read < 1:
        yield f"reading its telemetry: {percent(run.share_read)}", "yellow"
    if run.hold and run.alive:
        yield run.hold, "yellow"
    if run.silent_since_t is not None:
        yield f"silent since {clock(run.silent_since_t)}: the system froze the trainer", "blue"
    if run.state in ("killed", "stopped", "failed") and not run.trouble:
        yield f"`ondevice train {run.name}` goes on", "yellow"
    yield from ((sentence, "red") for sentence in (run.last_error, *run.trouble) if sentence)


def facts_text(run: RunSnapshot, width: int, glyphs: Glyphs) -> Text:
    """Numbers of now, in as many columns as fit."""
    facts = _facts(run, glyphs)
    columns = max(1, width // 17)
    cell = (width - 2 * (columns - 1)) // columns
    text = Text(no_wrap=True)
    for number, (label, value) in enumerate(facts):
        if number:
            text.append("  " if number % columns else "\n")
        text.append(label, "dim").append(value.rjust(max(len(value) + 1, cell - len(label))))
    return text


def _facts(run: RunSnapshot, glyphs: Glyphs) -> list[tuple[str, str]]:
    now = run.alive  # how the machine of a dead run feels is no longer known
    heat = "-" if run.cpu_c is None or not now else f"{run.cpu_c:.0f}{glyphs.degree}"
    plug = "+" if run.plugged else ""
    battery = "-" if run.battery_percent is None or not now else f"{run.battery_percent:.0f}%{plug}"
    return [
        ("loss", decimal(run.loss, 4)),
        ("best val", decimal(run.best_loss, 4)),
        ("tok/s", count(run.tok_s) if now else "-"),
        ("sustained", count(run.tok_s_sustained)),
        ("lr", decimal(run.lr, 5)),
        ("grad norm", decimal(run.grad_norm)),
        ("step s", decimal(run.step_s)),
        ("tokens", _short(run.tokens)),
        ("memory", megabytes(run.rss_mb) if now else "-"),
        ("free", megabytes(run.available_mb) if now else "-"),
        ("cpu", heat),
        ("battery", battery),
        ("disk", megabytes(run.disk_free_mb) if now else "-"),
        ("saved", count(run.checkpoints[-1]) if run.checkpoints else "-"),
    ]


def _short(tokens: int) -> str:
    return f"{tokens / 1e6:,.2f} M" if tokens >= 1_000_000 else count(tokens)


def validation_text(run: RunSnapshot, width: int, glyphs: Glyphs) -> Text:
    """Loss of each source, the mixture first, and how it got there."""
    if not run.val:
        return Text("not measured yet", "dim")
    rows = sorted(run.val, key=lambda source: (source.name != "", source.name))
    name_width = min(max(len(row.name or "mixture") for row in rows), max(6, width // 3))
    room = max(0, width - name_width - 9)
    text = Text(no_wrap=True)
    for number, row in enumerate(rows):
        name = fit(row.name or "mixture", name_width, glyphs.ellipsis)
        text.append("\n" if number else "").append(f"{name:<{name_width}} ", "" if row.name else "bold")
        text.append(f"{decimal(row.last, 4):>7} ", "yellow")
        text.append(sparkline(row.curve, room, glyphs), "dim yellow")
    if run.best_step is not None:
        text.append(f"\nbest {decimal(run.best_loss, 4)} at step {count(run.best_step)}", "green")
    return text


def samples_text(run: RunSnapshot, width: int, glyphs: Glyphs) -> Text:
    """What the model wrote last, after its prompt in bold."""
    if not run.samples:
        return Text("no sample yet", "dim")
    sample = run.samples[-1]
    text = Text(f"step {count(sample.step)}\n", "dim")
    return text.append(sample.prompt[:2000], "bold cyan").append(sample.text[:4000])


def events_text(run: RunSnapshot, width: int, glyphs: Glyphs) -> Text:
    """The log, newest first."""
    if not run.events:
        return Text("nothing happened yet", "dim")
    text = Text()
    for number, event in enumerate(reversed(run.events)):
        text.append("\n" if number else "").append(f"{clock(event.t)} ", "dim")
        if event.step is not None and event.kind in _AT_STEP:
            text.append(f"step {count(event.step)}: ")
        text.append(fit(event.text, 2 * width), _EVENT_STYLES.get(event.kind, ""))
    return text
