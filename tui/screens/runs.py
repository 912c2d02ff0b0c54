"""The Runs screen: every run of the watched folders; enter opens one, space marks it for comparison."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from rich.text import Text
from textual import events
from textual.binding import BindingType
from textual.containers import Container
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui.draw import begun
from tui.look import Look
from tui.screens.base import bindings
from tui.screens.control import CONTROL_KEYS, ControlScreen
from tui.snapshot import FeedSnapshot, RunSnapshot
from tui.views.head import sentences
from tui.views.heat import heat_text
from tui.views.loss import loss_text
from tui.views.runs import WIDE, heads_text, run_row
from tui.widgets.bars import Key
from tui.widgets.plot import PlotPane

__all__ = ["RunsScreen", "summary_text"]


class RunsScreen(ControlScreen):
    """A list that keeps its place when runs come and go."""

    NAME = "runs"
    KEYS: ClassVar[tuple[Key, ...]] = (
        ("enter", "open", "screen.open"),
        ("space", "mark", "screen.mark"),
        ("c", "compare", "app.go('compare')"),
        ("n", "new run", "app.go('new')"),
        *CONTROL_KEYS,
    )
    TOUCH = (("open", "screen.open"), ("screens", "app.menu"), ("actions", "screen.actions"), ("new", "app.go('new')"))
    BINDINGS: ClassVar[list[BindingType]] = bindings(KEYS[1:])

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, RunSnapshot] = {}

    def body(self) -> Iterable[Widget]:
        yield Static("", id="summary")
        yield Static("", id="heads")
        yield OptionList(id="runs", markup=False)
        yield Static("", id="why")
        with Container(id="preview"):
            yield PlotPane(loss_text, self.look, title="loss", id="loss")
            yield PlotPane(heat_text, self.look, title="heat and duty", id="heat")

    def on_mount(self) -> None:
        self.query_one(OptionList).focus()

    def on_resize(self, event: events.Resize) -> None:
        self._shown = {}

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_id is not None:
            self.tui.select(Path(event.option_id))
            self._preview()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        if event.option_id is not None:
            self.tui.select(Path(event.option_id))
            self.tui.action_go("watch")

    def action_open(self) -> None:
        self.query_one(OptionList).action_select()

    def action_mark(self) -> None:
        """Marks the run under the cursor for Compare, or no longer."""
        if (run := self.run_now) is not None and self._shown:
            self.tui.mark(run.path)
            self._shown = {}
            self.repaint()

    def show(self, snapshot: FeedSnapshot) -> None:
        self.query_one("#summary", Static).update(summary_text(snapshot, len(self.tui.marked), self.look))
        self.query_one("#heads", Static).update(heads_text(self._width, self.look))
        self.query_one("#heads").display = bool(snapshot.runs) and self._width >= WIDE
        runs = {str(run.path): run for run in snapshot.runs}
        if list(runs) == list(self._shown):
            self._repaint(runs)
        else:
            self._rebuild(runs)
        self._shown = runs
        self._preview()

    def _preview(self) -> None:
        """The run under the cursor, where a screen has room for it."""
        run, box = self.run_now, self.query_one("#preview")
        box.display = run is not None and bool(self._shown) and self.size.height >= 30 and self._width >= WIDE
        said = list(sentences(run, self.look))[:2] if run and self._shown and self._width >= WIDE else []
        self.query_one("#why", Static).update(Text("\n").join(Text(*each) for each in said))
        self.query_one("#why").display = bool(said)
        for pane in box.query(PlotPane):
            pane.border_title = f"{'loss' if pane.id == 'loss' else 'heat and duty'} of {run.name}" if run else ""
            pane.show(run if box.display else None, self.look)

    def _repaint(self, runs: dict[str, RunSnapshot]) -> None:
        rows = self.query_one(OptionList)
        for path, run in runs.items():
            if run is not self._shown[path]:
                rows.replace_option_prompt(path, self._row(run))

    def _rebuild(self, runs: dict[str, RunSnapshot]) -> None:
        rows, selected = self.query_one(OptionList), str(self.tui.selected)
        rows.clear_options()
        rows.add_options([Option(self._row(run), id=path) for path, run in runs.items()])
        if runs:
            rows.highlighted = list(runs).index(selected) if selected in runs else 0

    @property
    def _width(self) -> int:
        return max(20, self.query_one(OptionList).scrollable_content_region.width - 2)

    def _row(self, run: RunSnapshot) -> Text:
        row = run_row(run, self._width, self.look, marked=run.path in self.tui.marked)
        return row.append("\n") if "\n" in row.plain and self.size.height >= 18 else row  # room for a thumb


def summary_text(snapshot: FeedSnapshot, marked: int, look: Look) -> Text:
    """How many runs live, or what to do where there are none, and what is wrong with the folders."""
    living = sum(run.alive for run in snapshot.runs)
    if snapshot.runs:
        text = begun("ondevice", f"bold {look.palette.accent}")
        text.append(f"  {len(snapshot.runs)} run{'s' if len(snapshot.runs) != 1 else ''}, {living} alive")
        text.append(f", {marked} marked" if marked else "", look.palette.accent)
    else:
        text = Text("There are no runs yet: `ondevice quickstart` makes the first, or press n.")
    for sentence in snapshot.trouble:
        text.append("\n" + sentence, look.palette.bad)
    return text
