"""The Help screen: the keys of every screen, and what the signs mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.text import Text
from textual.widget import Widget

from tui.draw import begun
from tui.look import Look
from tui.screens.base import TABS, BaseScreen
from tui.screens.control import CONTROL_KEYS
from tui.screens.plots import PLOT_KEYS
from tui.snapshot import FeedSnapshot
from tui.widgets.bars import Key
from tui.widgets.pane import LinesPane

__all__ = ["HelpScreen", "help_lines"]

EVERYWHERE: tuple[Key, ...] = (
    ("1-8", "the screens above", ""),
    ("esc", "back", ""),
    (":", "all commands (also ctrl+p)", ""),
    ("T", "colours: dark, light, its own", ""),
    ("tab", "the next pane or list", ""),
    ("q", "quit; trainers go on", ""),
)
_COLUMN = 38  # cells


class HelpScreen(BaseScreen):
    """Scrolls."""

    NAME = "help"

    def body(self) -> Iterable[Widget]:
        yield LinesPane(lambda run, look: self._text(look), self.look, title="help", id="help")

    def _text(self, look: Look) -> Text:
        own = [(word, self.tui.keys_of(action)) for _, word, action in TABS if word != "Help"]
        of_some = (("A run, on Runs, Watch, Schedule", CONTROL_KEYS), ("Plots, on Watch and Compare", PLOT_KEYS))
        told = {key for _, keys in of_some for key in keys}
        screens = [(word, [key for key in keys if key not in told]) for word, keys in own]
        return help_lines([*of_some, *((word, keys) for word, keys in screens if keys)], self.size.width - 4, look)

    def on_mount(self) -> None:
        self.query_one(LinesPane).focus()

    def show(self, snapshot: FeedSnapshot) -> None:
        self.query_one(LinesPane).show(self.tui.nobody, self.look)


def help_lines(screens: Sequence[tuple[str, Sequence[Key]]], width: int, look: Look) -> Text:
    """Keys by screen, then the signs; side by side where there is room."""
    blocks = [_keys(name, keys, look) for name, keys in (("Everywhere", EVERYWHERE), *screens)]
    text = _beside([*blocks, _signs(look)], max(1, width // _COLUMN))
    more = "Temperatures and charge are green below their limit, yellow near it, red with ! beyond it."
    touch = "On a phone: touch a pane, swipe up and down to scroll, sideways for the next pane."
    return text.append(f"\n\n{more}\n{touch}\nPlots: wheel zooms where the plot has the focus, drag moves.")


def _keys(name: str, keys: Sequence[Key], look: Look) -> list[Text]:
    rows = [begun(name, f"bold {look.palette.accent}")]
    for key, word, _ in keys:
        rows.append(begun(f"  {look.glyphs.plain(key):<6} ", "bold").append(word, ""))
    return rows


def _signs(look: Look) -> list[Text]:
    rows = [begun("Signs", f"bold {look.palette.accent}")]
    states = look.glyphs.states
    rows += [begun(f"  {states[state]:<6} ", look.palette.state(state)).append(state, "") for state in states]
    rows.append(begun(f"  {look.glyphs.best:<6} ", look.palette.good).append("the best checkpoint", ""))
    rows.append(begun(f"  {look.glyphs.pin:<6} ", look.palette.accent).append("pinned, never deleted", ""))
    return rows


def _beside(blocks: list[list[Text]], columns: int) -> Text:
    """Blocks below each other in columns of about one height, in reading order."""
    height = -(-sum(len(block) + 1 for block in blocks) // columns)
    filled: list[list[Text]] = [[] for _ in range(columns)]
    at = 0
    for block in blocks:
        if filled[at] and len(filled[at]) + len(block) > height + 2 and at < columns - 1:
            at += 1
        filled[at] += [*([Text("")] if filled[at] else []), *block]
    rows = [Text(no_wrap=columns > 1) for _ in range(max(map(len, filled)))]
    for number, column in enumerate(filled):
        for row, cell in zip(rows, column, strict=False):
            row.append(" " * (number * _COLUMN - row.cell_len)).append_text(cell)
    return Text("\n").join(rows)
