"""The Watch screen: one run at a glance, and the keys that ask things of its trainer."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen

from ondevice.errors import OndeviceError
from ondevice.run import control
from ondevice.run.directory import RunDir
from tui.draw import Glyphs
from tui.screens.confirm import Confirm
from tui.snapshot import FeedSnapshot, RunSnapshot
from tui.widgets.controls import Controls, Keys
from tui.widgets.loss_plot import LossPlot
from tui.widgets.panes import Pane, events_text, facts_text, head_text, samples_text, validation_text

__all__ = ["WatchScreen"]

_KEYS = (
    ("p", "pause", "screen.ask('pause')"),
    ("r", "resume", "screen.ask('resume')"),
    ("s", "save", "screen.ask('save')"),
    ("x", "stop", "screen.stop"),
    ("esc", "back", "app.back"),
    ("q", "quit", "app.quit"),
)


class WatchScreen(Screen[None]):
    """Watches one run directory until escape. Holds its path and nothing else of it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "ask('pause')", "pause"),
        Binding("r", "ask('resume')", "resume"),
        Binding("s", "ask('save')", "save"),
        Binding("x", "stop", "stop"),
        Binding("escape", "app.back", "back"),
        Binding("q", "app.quit", "quit"),
    ]

    def __init__(self, path: Path, glyphs: Glyphs) -> None:
        super().__init__()
        self._path, self._glyphs = path, glyphs
        self._run: RunSnapshot | None = None

    def compose(self) -> ComposeResult:
        glyphs = self._glyphs
        yield Pane(head_text, glyphs, id="head")
        with VerticalScroll(id="body"):
            yield LossPlot(glyphs, id="plot")
            with VerticalScroll(id="numbers"):
                yield Pane(facts_text, glyphs, title="now", id="facts")
                yield Pane(validation_text, glyphs, title="validation", id="validation")
            with VerticalScroll(id="sample") as sample:
                sample.border_title = "last sample"
                yield Pane(samples_text, glyphs)
            with VerticalScroll(id="events") as events:
                events.border_title = "events"
                yield Pane(events_text, glyphs)
        yield Controls(glyphs, id="asks")
        yield Keys(_KEYS)

    def on_mount(self) -> None:
        self.watch(self.app, "snapshot", self._show)
        self.query_one("#body").focus()

    def _show(self, snapshot: FeedSnapshot | None) -> None:
        if snapshot is None:
            return
        run = snapshot.find(self._path) or self._vanished()
        if run == self._run:
            return
        self._run = run
        for pane in self.query(Pane):
            pane.show(run)
        self.query_one(LossPlot).show(run)
        self.query_one(Controls).show(run)

    def _vanished(self) -> RunSnapshot:
        name = self._path.name
        return RunSnapshot(
            name=name, path=self._path, state="gone", trouble=(f"{name} was deleted or renamed; escape goes back.",)
        )

    def action_ask(self, verb: str) -> None:
        """Drops a letter, unless the same one lies there already or nobody lives who could read it."""
        run = self._run
        if run is None:
            return
        if not run.alive:
            self._complain(f"No trainer holds {run.name}: `ondevice train {run.name}` starts one.")
        elif (ask := run.asked(verb)) is None or ask.state != "asked":
            self._send(verb)

    def action_stop(self) -> None:
        """Asks the person first, then the trainer."""
        if self._run is None or not self._run.alive:
            self.action_ask("stop")
            return
        question = f"Stop {self._run.name}? It finishes its step, saves and leaves."
        self.app.push_screen(Confirm(question, yes="stop (y)"), self._stop_if)

    def _stop_if(self, agreed: bool | None) -> None:
        if agreed:
            self.action_ask("stop")

    def _send(self, verb: str) -> None:
        try:
            control.send(RunDir(self._path), verb, sender="ondevice-tui")
        except (OndeviceError, OSError) as error:
            self._complain(f"Could not ask to {verb}: {error}")

    def _complain(self, sentence: str) -> None:
        self.notify(sentence, severity="warning", markup=False)
