"""The Saves screen: every checkpoint with its losses and quality; pin, export, and two samples side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.binding import BindingType
from textual.containers import Container
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir
from tui.asking import ask
from tui.jobs import ask_json
from tui.screens.base import bindings
from tui.screens.confirm import Confirm
from tui.screens.control import ControlScreen
from tui.screens.prompt import Prompt
from tui.snapshot import FeedSnapshot, RunSnapshot, Saved
from tui.views.checkpoints import nearest_sample, saved_heads, saved_row, step_sample_text
from tui.views.head import head_text
from tui.widgets.bars import Key
from tui.widgets.pane import Head, LinesPane, Pane
from tui.words import count

__all__ = ["CheckpointsScreen"]


class CheckpointsScreen(ControlScreen):
    """The cursor is on one checkpoint; a second one may be marked to lie beside it."""

    NAME = "checkpoints"
    KEYS: ClassVar[tuple[Key, ...]] = (
        ("space", "mark to compare", "screen.mark"),
        ("i", "pin", "screen.pin"),
        ("o", "export", "screen.export"),
        ("g", "generate from both", "screen.generate"),
        ("s", "save", "screen.ask('save')"),
        ("e", "evaluate", "screen.ask('eval')"),
    )
    BINDINGS: ClassVar[list[BindingType]] = bindings(KEYS)

    def __init__(self) -> None:
        super().__init__()
        self._step: int | None = None
        self._beside: int | None = None
        self._written: dict[int, tuple[str, str]] = {}  # step -> prompt, what it wrote when asked here
        self._shown: object = None

    def body(self) -> Iterable[Widget]:
        look = self.look
        yield Head(head_text, look, id="head")
        yield Static("", id="heads")
        yield OptionList(id="saves", markup=False)
        with Container(id="sides"):
            yield LinesPane(lambda run, look: self._sample(run, self._step), look, title="sample", id="left")
            yield LinesPane(lambda run, look: self._sample(run, self._beside), look, title="beside", id="right")

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()

    def show(self, snapshot: FeedSnapshot) -> None:
        run = self.run_now
        if run is None:
            return
        rows, width = self.query_one(OptionList), max(20, self.size.width - 6)
        self.query_one("#heads", Static).update(saved_heads(run, width, self.look))
        shape = (run.path, run.saved, width, self._beside, self.look)
        if shape != self._shown and run.share_read == 1:  # else the cursor would begin at what is newest so far
            self._shown = shape
            self._rebuild(rows, run, width)
        self.query_one("#right").display = self._beside is not None
        for pane in self.query(Pane):
            pane.show(run, self.look)

    def _rebuild(self, rows: OptionList, run: RunSnapshot, width: int) -> None:
        steps = [saved.step for saved in reversed(run.saved)]
        rows.clear_options()
        rows.add_options(
            [
                Option(saved_row(run, saved, width, self.look, marked=saved.step == self._beside), id=str(saved.step))
                for saved in reversed(run.saved)
            ]
        )
        rows.display = bool(steps)
        if steps:
            rows.highlighted = steps.index(self._step) if self._step in steps else 0

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self._step = int(event.option_id) if event.option_id else None
        self._tell_sides()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.action_mark()

    def _tell_sides(self) -> None:
        for name, step in (("#left", self._step), ("#right", self._beside)):
            pane = self.query_one(name, LinesPane)
            pane.border_title = self._title(step)
            pane.forget()
            pane.show(self.run_now, self.look)

    def _title(self, step: int | None) -> str:
        run = self.run_now
        if step is None or run is None:
            return "sample"
        if step in self._written or (sample := nearest_sample(run, step)) is None:
            return f"step {count(step)}"
        asked = ", asked for" if sample.letter else ""
        return f"step {count(step)}" + (f": sample of {count(sample.step)}" if sample.step != step else "") + asked

    def _sample(self, run: RunSnapshot, step: int | None) -> Text:
        return step_sample_text(run, step, self._written.get(step if step is not None else -1), self.look)

    def _saved(self) -> Saved | None:
        run = self.run_now
        return next((saved for saved in run.saved if saved.step == self._step), None) if run else None

    def action_mark(self) -> None:
        """Puts the checkpoint under the cursor beside the next one, or takes it away."""
        self._beside = None if self._beside == self._step else self._step
        self._tell_sides()
        self.repaint()

    def action_pin(self) -> None:
        """Pins it with a reason, or asks before it is left to retention again."""
        saved, run = self._saved(), self.run_now
        if saved is None or run is None:
            return
        step = saved.step
        if saved.pinned:
            question = f"Unpin step {count(step)} ({saved.pinned})? Retention may delete it then."
            self.app.push_screen(Confirm(question, yes="unpin (y)"), lambda yes: self._pin(step, None) if yes else None)
        else:
            asked = Prompt(f"Why keep step {count(step)} for ever?", yes="pin", text="asked for")
            self.app.push_screen(asked, lambda reason: self._pin(step, reason) if reason else None)

    def _pin(self, step: int, reason: str | None) -> None:
        run = self.run_now
        if run is None:
            return
        reason = " ".join(reason.split())[:200] if reason else None
        if run.alive:
            self.complain(ask(run, "pin", {"step": step, "reason": reason}))
            self.tui.look_again()
        else:
            self._change("pin", str(run.path), str(step), *(["--reason", reason] if reason else ["--remove"]))

    @work
    async def _change(self, *words: str) -> None:
        try:
            await ask_json(*words, timeout_s=60)
        except OndeviceError as error:
            self.complain(str(error))
        self.tui.look_again()

    def action_export(self) -> None:
        """Writes ONNX in a program of its own, which goes on without this one."""
        saved, run = self._saved(), self.run_now
        if saved is None or run is None:
            return
        words = ["export", str(run.path), "--step", str(saved.step)]
        try:
            log = RunDir(run.path).logs / f"export-{saved.step:08d}.log"
            self.tui.jobs.start(words, what=f"export of {run.name} at step {count(saved.step)}", log=log)
        except OndeviceError as error:
            self.complain(str(error))
        self.tui.look_again()

    def action_generate(self) -> None:
        """The same prompt to the checkpoint under the cursor and to the marked one."""
        if self._saved() is not None:
            prompt = self.run_now.samples[-1].prompt if self.run_now and self.run_now.samples else ""
            asked = Prompt("What shall they go on from?", yes="generate", text=prompt)
            self.app.push_screen(asked, self._generate_from)

    def _generate_from(self, prompt: str | None) -> None:
        if prompt is not None:
            self._generate(prompt)

    @work(exclusive=True, group="generate")
    async def _generate(self, prompt: str) -> None:
        run, steps = self.run_now, [step for step in (self._step, self._beside) if step is not None]
        for step in dict.fromkeys(steps):
            self._written[step] = prompt, " ..."
            self._tell_sides()
            try:
                assert run is not None
                answer = await ask_json("generate", str(run.path), "--step", str(step), "--", prompt)
                self._written[step] = prompt, str(answer.get("text", ""))
            except (OndeviceError, OSError) as error:
                self._written[step] = prompt, f"\n{error}"
            self._tell_sides()
