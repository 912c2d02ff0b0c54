"""Several of a list: space or a touch marks, enter takes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, SelectionList
from textual.widgets.selection_list import Selection

__all__ = ["Pick"]


class Pick(ModalScreen[set[str] | None]):
    """Gives the ids that were marked, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "leave", "leave"),
        Binding("enter", "take", "take", priority=True),
    ]

    def __init__(self, title: str, choices: Sequence[tuple[str, str]], chosen: set[str]) -> None:
        super().__init__()
        self._title, self._choices, self._chosen = title, choices, chosen

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog menu") as frame:
            frame.border_title = f"{self._title}: space marks, enter takes"
            yield SelectionList[str](
                *(Selection(Text(name), key, key in self._chosen) for key, name in self._choices), id="picks"
            )
            with Horizontal(classes="answers"):
                yield Button("take (enter)", id="yes", variant="primary")

    def on_mount(self) -> None:
        self.query_one(SelectionList).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.action_take()

    def action_take(self) -> None:
        self.dismiss(set(self.query_one(SelectionList).selected))

    def action_leave(self) -> None:
        self.dismiss(None)
