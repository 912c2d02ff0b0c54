"""The bars around a screen: where one is, what keys do, and what became of what was asked. All can be touched."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual import events
from textual.message import Message
from textual.widget import Widget

from tui.look import Look
from tui.snapshot import Ask, RunSnapshot
from tui.words import clock, fit

__all__ = ["AskLine", "Cell", "Cells", "Key", "TouchBar", "answer_text", "keys_cells", "tabs_cells"]

Key = tuple[str, str, str]  # key, word, action
Cell = tuple[str, str, str]  # text, style, action


class Cells(Widget):
    """One or more rows of words, each of which does its action when touched."""

    class Touched(Message):
        def __init__(self, action: str) -> None:
            super().__init__()
            self.action = action

    def __init__(self, rows: Sequence[Sequence[Cell]] = (), *, id: str | None = None, classes: str = "") -> None:
        super().__init__(id=id, classes=classes)
        self._rows = rows

    def show(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Other words."""
        if rows != self._rows:
            self._rows = rows
            self.refresh()

    def render(self) -> Text:
        return Text("\n", no_wrap=True).join(
            Text.assemble(*((text, style) for text, style, _ in row)) for row in self._rows
        )

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None or offset.y >= len(self._rows):
            return
        right = 0
        for text, _, action in self._rows[offset.y]:
            right += Text(text).cell_len
            if offset.x < right:
                if action:
                    event.stop()
                    self.post_message(self.Touched(action))
                return


class TouchBar(Widget):
    """Three rows of equal buttons at the bottom of a phone, large enough for a thumb."""

    def __init__(self, buttons: Sequence[tuple[str, str]], edge: str, *, id: str | None = None) -> None:
        """``edge`` stands between the buttons."""
        super().__init__(id=id)
        self._buttons, self._edge = buttons, edge

    def render(self) -> Text:
        width = self.content_size.width // max(1, len(self._buttons))
        words = Text(self._edge, no_wrap=True).join(Text(word.center(width - 1), "bold") for word, _ in self._buttons)
        blank = Text(self._edge, no_wrap=True).join(Text(" " * (width - 1)) for _ in self._buttons)
        return Text("\n", no_wrap=True).join((blank, words, blank))

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is not None and self._buttons:
            number = min(len(self._buttons) - 1, offset.x * len(self._buttons) // max(1, self.content_size.width))
            event.stop()
            self.post_message(Cells.Touched(self._buttons[number][1]))


class AskLine(Widget):
    """What became of the requests, from the files alone: asked, accepted, refused or expired."""

    def __init__(self, look: Look, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._look, self._said = look, Text("")
        self.display = False

    def show(self, run: RunSnapshot | None, look: Look, more: str = "") -> None:
        """``more``: a sentence of this program's own doings, such as a trainer that starts."""
        self._look = look
        width = self.content_size.width or self.app.size.width - 2
        said = (
            Text(fit(more, width, look.glyphs.ellipsis), look.palette.warn) if more else answer_text(run, width, look)
        )
        if said != self._said:
            self._said = said
            self.display = bool(said.plain)
            self.refresh()

    def render(self) -> Text:
        return self._said


def answer_text(run: RunSnapshot | None, width: int, look: Look) -> Text:
    """Open requests first, then the last answer; empty where nothing was asked since the last launch."""
    asks = run.asks if run else ()
    shown = [ask for ask in asks if ask.state == "asked"] or list(asks[:1])
    styles = {"asked": f"bold {look.palette.warn}", "accepted": look.palette.good}
    text = Text(no_wrap=True)
    for number, ask in enumerate(shown):
        head = f"{f' {look.glyphs.dot} ' if number else ''}{ask.verb}: "
        room = width - text.cell_len - len(head)
        if room < 5:
            break
        assert run is not None
        text.append(head, look.palette.dim)
        text.append(fit(_verdict(ask, run), room, look.glyphs.ellipsis), styles.get(ask.state, look.palette.bad))
    return text


def _verdict(ask: Ask, run: RunSnapshot) -> str:
    if ask.state == "asked":
        return "asked" if run.alive and run.state != "asleep" else "asked; nobody is awake to answer"
    if ask.state == "accepted":
        return f"accepted at {clock(ask.t)}"
    return f"{ask.state}: {ask.why}" if ask.why else f"{ask.state} at {clock(ask.t)}"


def keys_cells(keys: Sequence[Key], last: Sequence[Key], width: int, look: Look) -> list[Cell]:
    """``p pause  r resume ...``: as many as fit beside the last ones, which always do."""
    cells: list[Cell] = []
    room = width - sum(_size(key) for key in last)
    for key in keys:
        if _size(key) > room:
            break
        room -= _size(key)
        cells += _key_cells(key, look)
    return [*cells, *(cell for key in last for cell in _key_cells(key, look))]


def _size(key: Key) -> int:
    return len(key[0]) + len(key[1]) + 3


def _key_cells(key: Key, look: Look) -> list[Cell]:
    sign, word, action = look.glyphs.plain(key[0]), key[1], key[2]
    return [(sign, f"bold {look.palette.accent}", action), (f" {word}", "", action), ("  ", "", "")]


def tabs_cells(tabs: Sequence[Key], current: str, width: int, look: Look) -> list[Cell]:
    """Where one is and where one can go; only numbers of other places where words do not fit."""
    size = sum(len(key) + len(word) + 2 for key, word, _ in tabs)
    cells: list[Cell] = []
    for key, word, action in tabs:
        here = action == current
        text = f" {key} {word}" if size <= width or here else f" {key}"
        text += " " if size + len(tabs) <= width or size > width else ""
        cells.append((text, f"bold reverse {look.palette.accent}" if here else look.palette.dim, action))
    return cells
