"""The Device screen: what `ondevice doctor` finds here, and what the sensors of a live run say now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from textual import work
from textual.binding import BindingType
from textual.containers import Container
from textual.widget import Widget

from ondevice.errors import OndeviceError
from tui.jobs import ask_json
from tui.screens.base import BaseScreen, bindings
from tui.snapshot import FeedSnapshot
from tui.views.device import device_text
from tui.views.machine import sensors_text
from tui.widgets.bars import Key
from tui.widgets.pane import LinesPane, Pane

__all__ = ["DeviceScreen"]


class DeviceScreen(BaseScreen):
    """Asks the doctor when it opens and when it is told to."""

    NAME = "device"
    KEYS: ClassVar[tuple[Key, ...]] = (
        ("d", "ask the doctor again", "screen.ask"),
        ("t", "with trial imports", "screen.ask(False)"),
    )
    BINDINGS: ClassVar[list[BindingType]] = bindings(KEYS)

    def __init__(self) -> None:
        super().__init__()
        self._answer: dict[str, Any] | str = "asking `ondevice doctor` ..."

    def body(self) -> Iterable[Widget]:
        with Container(id="sides"):
            yield LinesPane(lambda run, look: device_text(self._answer, look), self.look, title="doctor", id="doctor")
            yield Pane(sensors_text, self.look, title="sensors now", id="sensors")

    def on_mount(self) -> None:
        self.action_ask()
        self.query_one("#doctor").focus()

    def action_ask(self, quick: bool = True) -> None:
        self._ask(quick)

    @work(exclusive=True)
    async def _ask(self, quick: bool) -> None:
        try:
            self._answer = await ask_json("doctor", *(["--quick"] if quick else []), timeout_s=180)
        except OndeviceError as error:
            self._answer = str(error)
        for pane in self.query("#doctor").results(LinesPane):  # none where nobody looks any more
            pane.forget()
            self.repaint()

    def show(self, snapshot: FeedSnapshot) -> None:
        measured = [run for run in snapshot.runs if run.alive and run.sensors]
        live = min(
            measured, key=lambda run: (run.path != self.tui.selected, run.state == "asleep"), default=self.tui.nobody
        )
        sensors = self.query_one("#sensors", Pane)
        sensors.border_title = f"sensors now, by {live.name}" if live.sensors else "sensors"
        for pane in self.query(Pane):
            pane.show(live, self.look)
