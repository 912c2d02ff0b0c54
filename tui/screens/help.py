"""The Help screen: the keys of every screen, and what the signs mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text
from textual.widget import Widget

from tui.look import Look
from tui.screens.base import TABS, BaseScreen
from tui.snapshot import FeedSnapshot
from tui.widgets.bars import Key
from tui.widgets.pane import LinesPane

__all__ = ["HelpScreen", "help_lines"]

EVERYWHERE: tuple[Key, ...] = (
    ("1-8", "the screens above", ""),
    ("esc", "back", ""),
    (":", "all commands (also ctrl+p)", ""),
    ("T", "colours: dark, light, the terminal's own", ""),
    ("tab", "the next pane or list", ""),
    ("q", "quit; trainers go on", ""),
)


class HelpScreen(BaseScreen):
    """Scrolls."""

    NAME = "help"

    def body(self) -> Iterable[Widget]:
        yield LinesPane(lambda run, look: self._text(look), self.look, title="help", id="help")

    def _text(self, look: Look) -> Text:
        screens = [(word, self.tui.keys_of(action)) for _, word, action in TABS if word != "Help"]
        return help_lines(screens, look)

    def on_mount(self) -> None:
        self.query_one(LinesPane).focus()

    def show(self, snapshot: FeedSnapshot) -> None:
        self.query_one(LinesPane).show(self.tui.nobody, self.look)


def help_lines(screens: Sequence[tuple[str, Sequence[Key]]], look: Look) -> Text:
    """Keys by screen, then the signs."""
    text = Text()
    for name, keys in (("Everywhere", EVERYWHERE), *screens):
        text.append(f"{'' if not text.plain else chr(10) * 2}{name}", f"bold {look.palette.accent}")
        for key, word, _ in keys:
            text.append(f"\n  {look.glyphs.plain(key):<6} ", "bold").append(word)
    text.append("\n\nSigns", f"bold {look.palette.accent}")
    for state in look.glyphs.states:
        text.append(f"\n  {look.glyphs.state(state):<6} ", look.palette.state(state)).append(state)
    text.append(f"\n  {look.glyphs.best:<6} ", look.palette.good).append("the best checkpoint")
    text.append(f"\n  {look.glyphs.pin:<6} ", look.palette.accent).append("a pinned checkpoint, never deleted")
    more = "Temperatures and charge are green below their limit, yellow near it, red with ! beyond it."
    touch = "On a phone: touch a pane, swipe up and down to scroll, sideways for the next pane."
    return text.append(f"\n\n{more}\n{touch}\nPlots: wheel zooms where the plot has the focus, drag moves.")
