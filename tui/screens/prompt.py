"""A text to type or paste: enter sends it, ctrl+n begins a new line, escape leaves."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Button, Static, TextArea

__all__ = ["Prompt"]

_LONGEST = 200_000  # characters; far beyond what a letter holds, which has its own sentence


class _Editor(TextArea):
    """Sends on enter, as a phone's keyboard does."""

    class Sent(Message):
        pass

    async def _on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.post_message(self.Sent())
        elif event.key == "ctrl+n":
            event.stop()
            event.prevent_default()
            self.insert("\n")
        else:
            await super()._on_key(event)


class Prompt(ModalScreen[str | None]):
    """Gives the text, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "leave", priority=True)]

    def __init__(self, question: str, *, yes: str = "ask", text: str = "") -> None:
        super().__init__()
        self._question, self._yes, self._text = question, yes, text

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Static(Text(self._question))
            yield _Editor(self._text, id="text", soft_wrap=True, show_line_numbers=False)
            yield Static(Text("enter sends, ctrl+n is a new line", "dim"), classes="hint")
            with Horizontal(classes="answers"):
                yield Button(self._yes, id="yes", variant="primary")
                yield Button("leave (esc)", id="no")

    def on_mount(self) -> None:
        self.query_one(_Editor).focus()

    def on__editor_sent(self) -> None:
        self._send()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "yes":
            self._send()
        else:
            self.dismiss(None)

    def action_leave(self) -> None:
        self.dismiss(None)

    def _send(self) -> None:
        self.dismiss(self.query_one(_Editor).text[:_LONGEST])
