"""The Limits screen: how politely a run behaves, every key with its meaning, changed with validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any, ClassVar

from textual import work
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ondevice.errors import OndeviceError
from ondevice.run.config import change_limits, changed_keys
from ondevice.run.schema import Limits
from tui.asking import ask
from tui.jobs import ask_json
from tui.screens.base import bindings
from tui.screens.control import ControlScreen
from tui.screens.prompt import Prompt
from tui.snapshot import FeedSnapshot, RunSnapshot
from tui.views.head import head_text
from tui.views.limits import help_text, limit_row
from tui.widgets.bars import Key
from tui.widgets.pane import Head, Pane

__all__ = ["LimitsScreen"]

_FIELDS = {each.name: each for each in dataclasses.fields(Limits)}


class LimitsScreen(ControlScreen):
    """What holds now, and why; enter changes the key under the cursor."""

    NAME = "limits"
    KEYS: ClassVar[tuple[Key, ...]] = (("enter", "change", "screen.change"), ("d", "default", "screen.default"))
    TOUCH = (("back", "app.back"), ("change", "screen.change"), ("screens", "app.menu"), ("default", "screen.default"))
    BINDINGS: ClassVar[list[BindingType]] = bindings(KEYS[1:])

    def __init__(self) -> None:
        super().__init__()
        self._why: dict[str, str] = {}
        self._asked_about: object = None
        self._shown: object = None

    def body(self) -> Iterable[Widget]:
        yield Head(head_text, self.look, id="head")
        yield OptionList(id="limits", markup=False)
        yield Static("", id="about")

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()

    def show(self, snapshot: FeedSnapshot) -> None:
        run = self.run_now
        if run is None:
            return
        self.query_one("#head", Pane).show(run, self.look)
        if (run.path, run.limits) != self._asked_about:
            self._asked_about = (run.path, run.limits)
            self._ask_why(run)
        width = max(20, self.size.width - 6)
        shape = (run.path, run.limits, tuple(self._why.items()), width, self.look)
        if shape != self._shown:
            self._shown = shape
            self._rebuild(run, width)

    def _rebuild(self, run: RunSnapshot, width: int) -> None:
        rows = self.query_one(OptionList)
        at = rows.highlighted or 0
        rows.clear_options()
        values = {**dataclasses.asdict(Limits()), **run.limits}
        rows.add_options(
            [
                Option(limit_row(key, values.get(key), self._why.get(key, ""), width, self.look), id=key)
                for key in _FIELDS
            ]
        )
        rows.highlighted = at

    @work(exclusive=True)
    async def _ask_why(self, run: RunSnapshot) -> None:
        """What the keys that were left out come to, which only the governor knows."""
        try:
            answer = await ask_json("limit", str(run.path), timeout_s=60)
        except OndeviceError:
            return  # the values are shown without their reasons
        why = answer.get("why")
        self._why = {str(key): str(value) for key, value in why.items()} if isinstance(why, dict) else {}
        self.repaint()

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_id:
            field = _FIELDS[event.option_id]
            self.query_one("#about", Static).update(help_text(field.name, dict(field.metadata), self.look))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.action_change()

    @property
    def _key(self) -> str | None:
        option = self.query_one(OptionList).highlighted_option
        return option.id if option else None

    def action_change(self) -> None:
        key, run = self._key, self.run_now
        if key is None or run is None:
            return
        now = run.limits.get(key)
        text = "" if now is None else str(now).lower() if isinstance(now, bool) else str(now)
        unit = _FIELDS[key].metadata.get("unit", "")
        asked = Prompt(
            f"{key}{f' in {unit}' if unit else ''}; empty gives it back to its default", yes="change", text=text
        )
        self.app.push_screen(asked, lambda value: self._change(key, value) if value is not None else None)

    def action_default(self) -> None:
        if (key := self._key) is not None:
            self._change(key, "")

    def _change(self, key: str, value: str) -> None:
        """Checks as a config file is checked, then asks the trainer, or the command where none lives."""
        run = self.run_now
        if run is None:
            return
        value = " ".join(value.split())
        try:
            changes: dict[str, Any] = changed_keys([f"limits.{key}={value}"], "limits") if value else {key: None}
            change_limits(_limits_of(run), changes, where="limit")
        except OndeviceError as error:
            self.complain(str(error))
            return
        if run.alive:
            self.complain(ask(run, "limit", changes))
            self.tui.look_again()
        else:
            self._by_command(str(run.path), f"{key}={value}")

    @work
    async def _by_command(self, run: str, change: str) -> None:
        try:
            await ask_json("limit", run, change, timeout_s=60)
        except OndeviceError as error:
            self.complain(str(error))
        self.tui.look_again()


def _limits_of(run: RunSnapshot) -> Limits:
    known = {key: value for key, value in run.limits.items() if key in _FIELDS and value is not None}
    return change_limits(Limits(), known)
