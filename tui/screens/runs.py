"""The Runs screen: every run of the watched folders; enter opens one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui.draw import Glyphs
from tui.screens.watch import WatchScreen
from tui.snapshot import FeedSnapshot, RunSnapshot
from tui.widgets.controls import Keys
from tui.widgets.rows import run_row

__all__ = ["RunsScreen", "summary_text"]


class RunsScreen(Screen[None]):
    """A list that keeps its place when runs come and go."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("q", "app.quit", "quit")]

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__()
        self._glyphs = glyphs
        self._latest: FeedSnapshot | None = None
        self._shown: dict[str, RunSnapshot] = {}

    def compose(self) -> ComposeResult:
        yield Static("", id="summary")
        yield OptionList(id="runs", markup=False)
        yield Keys((("enter", "open", "screen.open"), ("q", "quit", "app.quit")))

    def on_mount(self) -> None:
        self.watch(self.app, "snapshot", self._show)
        self.query_one(OptionList).focus()

    def on_resize(self, event: Resize) -> None:
        self._shown = {}
        self.call_after_refresh(lambda: self._show(self._latest))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        if event.option_id is not None:
            self.app.push_screen(WatchScreen(Path(event.option_id), self._glyphs))

    def action_open(self) -> None:
        self.query_one(OptionList).action_select()

    def _show(self, snapshot: FeedSnapshot | None) -> None:
        if snapshot is None:
            return
        self._latest = snapshot
        self.query_one("#summary", Static).update(summary_text(snapshot))
        runs = {str(run.path): run for run in snapshot.runs}
        if list(runs) == list(self._shown):
            self._repaint(runs)
        else:
            self._rebuild(runs)
        self._shown = runs

    def _repaint(self, runs: dict[str, RunSnapshot]) -> None:
        rows = self.query_one(OptionList)
        for path, run in runs.items():
            if run is not self._shown[path]:
                rows.replace_option_prompt(path, self._row(run))

    def _rebuild(self, runs: dict[str, RunSnapshot]) -> None:
        rows = self.query_one(OptionList)
        option = rows.highlighted_option
        rows.clear_options()
        rows.add_options([Option(self._row(run), id=path) for path, run in runs.items()])
        if runs:
            rows.highlighted = list(runs).index(option.id) if option and option.id in runs else 0

    def _row(self, run: RunSnapshot) -> Text:
        return run_row(run, max(20, self.query_one(OptionList).scrollable_content_region.width - 2), self._glyphs)


def summary_text(snapshot: FeedSnapshot) -> Text:
    """How many runs live, or what to do where there are none, and what is wrong with the folders."""
    living = sum(run.alive for run in snapshot.runs)
    if snapshot.runs:
        text = Text("ondevice", "bold").append(
            f"  {len(snapshot.runs)} run{'s' if len(snapshot.runs) != 1 else ''}, {living} alive\n"
        )
    else:
        text = Text("There are no runs yet: `ondevice quickstart` makes the first.\n")
    for sentence in snapshot.trouble:
        text.append(sentence + "\n", "red")
    text.right_crop(1)
    return text
