"""The New screen: which text, which preset, how much time or memory; the plan as it comes; and start."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from textual import work
from textual.binding import BindingType
from textual.containers import Container, Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import Button, Input, Label, Select

from ondevice.errors import OndeviceError
from ondevice.run.config import preset_names
from ondevice.run.directory import home, safe_name
from tui.jobs import ask_json
from tui.screens.base import BaseScreen, bindings
from tui.screens.paths import PathSuggester, earlier_texts
from tui.snapshot import FeedSnapshot, RunSnapshot
from tui.views.plan import plan_text
from tui.widgets.bars import Key
from tui.widgets.pane import LinesPane

__all__ = ["NewRunScreen"]

_SETTLE_S = 1.0  # after the last key, before the plan is asked for
_OWN = ""


class NewRunScreen(BaseScreen):
    """A form; what it would come to is asked of `ondevice plan` whenever the form rests."""

    NAME = "new"
    KEYS: ClassVar[tuple[Key, ...]] = (("f5", "plan again", "screen.plan"), ("ctrl+s", "start", "screen.start"))
    TOUCH = (("back", "app.back"), ("screens", "app.menu"), ("plan", "screen.plan"), ("start", "screen.start"))
    BINDINGS: ClassVar[list[BindingType]] = bindings(KEYS)

    def __init__(self) -> None:
        super().__init__()
        self._plan: dict[str, Any] | str = "Name a file or folder of text, and the plan appears here."
        self._planned: list[str] = []

    def body(self) -> Iterable[Widget]:
        earlier = earlier_texts(self.tui.snapshot.runs if self.tui.snapshot else ())
        with Container(id="sides"):
            with VerticalScroll(id="form"):
                yield Label("text: files or folders, ; between")
                yield Input(placeholder="~/notes", id="text", suggester=PathSuggester())
                yield Select(earlier, prompt="... or of an earlier run", id="earlier", disabled=not earlier)
                yield Label("preset")
                yield Select([("derive everything", _OWN), *((name, name) for name in preset_names())], value=_OWN,
                             allow_blank=False, id="preset")  # fmt: skip
                yield Label("how much")
                with Horizontal(id="dial"):
                    yield Input("30", type="number", id="amount")
                    yield Select([("minutes", "--minutes"), ("MB of memory", "--memory")], value="--minutes",
                                 allow_blank=False, id="unit")  # fmt: skip
                yield Label("name (may stay empty)")
                yield Input(placeholder="from the text", id="name")
                yield Button("start", id="start", variant="primary")
            yield LinesPane(lambda run, look: plan_text(self._plan, look), self.look, title="plan", id="plan")

    def on_mount(self) -> None:
        self.query_one("#text", Input).focus()

    def show(self, snapshot: FeedSnapshot) -> None:
        self.query_one("#plan", LinesPane).show(RunSnapshot(name="", path=self.tui.folder, state="unknown"), self.look)

    def words(self) -> list[str]:
        """The flags that the form stands for; empty where it names no text."""
        texts = [word.strip() for word in self.query_one("#text", Input).value.split(";") if word.strip()]
        preset, unit = self.query_one("#preset", Select).value, self.query_one("#unit", Select).value
        amount, name = self.query_one("#amount", Input).value.strip(), self.query_one("#name", Input).value.strip()
        if not texts:
            return []
        words = [str(preset)] if preset else []
        words += [word for text in texts for word in ("--data", text)]
        words += [str(unit), amount] if amount else []
        return words + (["--name", name] if name else [])

    def on_input_changed(self, event: Input.Changed) -> None:
        self._later()

    def on_select_changed(self, event: Select.Changed) -> None:
        if event.select.id == "earlier" and isinstance(event.value, str):
            self.query_one("#text", Input).value = event.value
        self._later()

    def _later(self) -> None:
        if (words := self.words()) != self._planned:
            self._planned = words
            self._ask(words, wait_s=_SETTLE_S)

    def action_plan(self) -> None:
        self._planned = self.words()
        self._ask(self._planned, wait_s=0.0)

    @work(exclusive=True)
    async def _ask(self, words: list[str], *, wait_s: float) -> None:
        """The plan of that form; a form that changes meanwhile ends the question."""
        if not words:
            return
        if fault := _fault(words):
            self._tell(fault)
            return
        await asyncio.sleep(wait_s)
        self._tell("reading the text and timing a few steps ...")
        try:
            self._tell(await ask_json("plan", *words))
        except OndeviceError as error:
            self._tell(str(error))

    def _tell(self, plan: dict[str, Any] | str) -> None:
        self._plan = plan
        self.query_one("#plan", LinesPane).forget()
        self.repaint()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "start":
            self.action_start()

    def action_start(self) -> None:
        """Starts the trainer in a session of its own; its run appears in the list when it is planned."""
        words = self.words()
        if fault := _fault(words):
            self.complain(fault)
            return
        name = safe_name(self.query_one("#name", Input).value or Path(_paths(words)[0]).name)
        try:
            self.tui.jobs.start(
                ["train", *words, "--quiet"], what=f"new run {name}", log=home() / "logs" / f"train-{name}.log"
            )
        except OndeviceError as error:
            self.complain(str(error))
            return
        self.notify(f"{name}: its text is read and planned; it appears here when it begins.", markup=False)
        self.tui.action_go("runs")


def _fault(words: list[str]) -> str:
    """What is wrong with a form, as far as can be seen from here."""
    if not words:
        return "Name a file or folder of text first."
    missing = next((path for path in _paths(words) if not Path(path).expanduser().exists()), "")
    return f"{missing}: there is no such file or folder." if missing else ""


def _paths(words: list[str]) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == "--data"]
