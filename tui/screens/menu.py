"""A list of things to do or places to go, each tall enough for a thumb."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from tui.look import Glyphs
from tui.widgets.bars import Key

__all__ = ["Menu"]


class Menu(ModalScreen[str | None]):
    """Gives the action that was chosen, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "leave", "leave")]

    def __init__(self, title: str, keys: Sequence[Key], glyphs: Glyphs) -> None:
        super().__init__()
        self._title, self._keys, self._glyphs = title, tuple(keys), glyphs

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog menu") as frame:
            frame.border_title = self._title
            yield OptionList(id="choices", markup=False)

    def on_mount(self) -> None:
        tall = self.app.size.width < 80 and self.app.size.height > 12
        options, plain = [], self._glyphs.plain
        for key, word, action in self._keys:
            line = Text(f" {plain(key):<6}", "bold").append(word, "")
            options.append(Option(Text("\n").append_text(line).append("\n") if tall else line, id=action))
        choices = self.query_one(OptionList)
        choices.add_options(options)
        choices.focus()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_id)

    def action_leave(self) -> None:
        self.dismiss(None)
