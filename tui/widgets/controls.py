"""The line of controls: keys that may also be touched, and what became of the last request."""

from __future__ import annotations

from rich.style import Style
from rich.text import Text
from textual.widgets import Static

from tui.draw import Glyphs
from tui.snapshot import Ask, RunSnapshot
from tui.widgets.any_width import AnyWidth
from tui.words import clock, fit

__all__ = ["Controls", "Keys", "answer_text", "keys_text"]

Key = tuple[str, str, str]  # key, word, action

_STATE_STYLES = {"asked": "bold yellow", "accepted": "green", "refused": "bold red"}


class Keys(Static):
    """The keys of a screen, each of which does its action when touched."""

    def __init__(self, keys: tuple[Key, ...], *, id: str | None = None) -> None:
        super().__init__(AnyWidth(lambda width: keys_text(keys, width)), id=id, classes="keys")


class Controls(Static):
    """What became of the requests, from the files alone: asked, accepted or refused."""

    def __init__(self, glyphs: Glyphs, *, id: str | None = None) -> None:
        super().__init__("", id=id)
        self._glyphs = glyphs

    def show(self, run: RunSnapshot) -> None:
        """Paints the run's requests."""
        self.display = bool(run.asks)
        self.update(AnyWidth(lambda width: answer_text(run, width, self._glyphs)))


def keys_text(keys: tuple[Key, ...], width: int) -> Text:
    """``p pause  r resume ...`` on as many lines as it takes, with a touch area on each."""
    text, column = Text(no_wrap=True), 0
    for key, word, action in keys:
        size = len(key) + 1 + len(word)
        if column:
            text.append("  " if column + 2 + size <= width else "\n")
            column = column + 2 if column + 2 + size <= width else 0
        touch = Style(meta={"@click": action})
        text.append(key, Style(bold=True, reverse=True) + touch).append(f" {word}", touch)
        column += size
    return text


def answer_text(run: RunSnapshot, width: int, glyphs: Glyphs) -> Text:
    """Open requests first, then the last answer; empty where nothing was asked since the last launch."""
    waiting = [ask for ask in run.asks if ask.state == "asked"]
    shown = waiting or list(run.asks[:1])
    text = Text(no_wrap=True)
    for number, ask in enumerate(shown):
        text.append(f" {glyphs.dot} " if number else "").append(f"{ask.verb}: ", "dim")
        text.append(fit(_verdict(ask, run), width - len(ask.verb) - 2, glyphs.ellipsis), _STATE_STYLES[ask.state])
    return text


def _verdict(ask: Ask, run: RunSnapshot) -> str:
    if ask.state == "asked":
        return "asked" if run.alive and run.state != "asleep" else "asked; nobody is awake to answer"
    if ask.state == "accepted":
        return f"accepted at {clock(ask.t)}"
    return f"refused: {ask.why}" if ask.why else f"refused at {clock(ask.t)}"
