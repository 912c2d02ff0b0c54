"""The Schedule screen: the parts of a run and their stages, where it has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual.binding import BindingType
from textual.widget import Widget

from tui.screens.base import bindings
from tui.screens.control import CONTROL_KEYS, ControlScreen
from tui.snapshot import FeedSnapshot
from tui.views.head import head_text
from tui.views.schedule import schedule_text
from tui.widgets.bars import Key
from tui.widgets.pane import Head, LinesPane, Pane

__all__ = ["ScheduleScreen"]


class ScheduleScreen(ControlScreen):
    """Which text is learned when."""

    NAME = "schedule"
    KEYS: ClassVar[tuple[Key, ...]] = CONTROL_KEYS
    BINDINGS: ClassVar[list[BindingType]] = bindings(KEYS)

    def body(self) -> Iterable[Widget]:
        yield Head(head_text, self.look, id="head")
        yield LinesPane(schedule_text, self.look, title="schedule", id="schedule")

    def show(self, snapshot: FeedSnapshot) -> None:
        for pane in self.query(Pane):
            pane.show(self.run_now, self.look)
