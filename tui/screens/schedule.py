"""The Schedule screen: the parts of a run and their stages, where it has them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual.binding import BindingType
from textual.widget import Widget

from tui.look import Look
from tui.screens.base import bindings
from tui.screens.control import CONTROL_KEYS, ControlScreen
from tui.snapshot import FeedSnapshot, RunSnapshot
from tui.views.head import head_text
from tui.views.schedule import active_line, schedule_text
from tui.widgets.bars import Key
from tui.widgets.pane import Head, LinesPane, Pane

__all__ = ["ScheduleScreen"]


class ScheduleScreen(ControlScreen):
    """Which text is learned when."""

    NAME = "schedule"
    KEYS: ClassVar[tuple[Key, ...]] = CONTROL_KEYS
    BINDINGS: ClassVar[list[BindingType]] = bindings(KEYS)

    def __init__(self) -> None:
        super().__init__()
        self._placed: object = None

    def body(self) -> Iterable[Widget]:
        yield Head(head_text, self.look, id="head")
        yield LinesPane(self._text, self.look, title="schedule", id="schedule")

    def _text(self, run: RunSnapshot, look: Look) -> Text:
        return schedule_text(run, self.size.width - 4, look)

    def show(self, snapshot: FeedSnapshot) -> None:
        for pane in self.query(Pane):
            pane.show(self.run_now, self.look)
        run = self.run_now
        if run is not None and run.schedule and self._placed != run.path:
            self._placed = run.path
            self.query_one("#schedule", LinesPane).place(active_line(run.schedule))
