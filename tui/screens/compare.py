"""The Compare screen: losses of two or more runs on one plot, by steps, tokens or time since their beginning."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual.binding import BindingType
from textual.widget import Widget
from textual.widgets import Static

from tui.look import Look
from tui.screens.base import bindings
from tui.screens.pick import Pick
from tui.screens.plots import PLOT_KEYS, PlotScreen
from tui.snapshot import FeedSnapshot, RunSnapshot
from tui.views.compare import WHAT, compare_text, table_text
from tui.views.window import Window
from tui.widgets.bars import Key
from tui.widgets.pane import Pane
from tui.widgets.plot import PlotPane

__all__ = ["CompareScreen"]


class CompareScreen(PlotScreen):
    """The marked runs; where none are, the first few of the list."""

    NAME = "compare"
    AXES = ("steps", "tokens", "elapsed")
    KEYS: ClassVar[tuple[Key, ...]] = (
        ("c", "choose runs", "screen.choose"),
        ("v", "which curve", "screen.what"),
        *PLOT_KEYS,
    )
    BINDINGS: ClassVar[list[BindingType]] = bindings(KEYS)

    def __init__(self) -> None:
        super().__init__()
        self._what = WHAT[0]
        self._compared: list[RunSnapshot] = []

    def body(self) -> Iterable[Widget]:
        yield PlotPane(self._plot, self.look, title="compare", id="comparison")
        yield Static("", id="table")

    def _plot(self, run: RunSnapshot, width: int, height: int, look: Look, window: Window) -> Text:
        return compare_text(self.runs, width, height, look, window, what=self._what)

    @property
    def runs(self) -> list[RunSnapshot]:
        """Those that are compared."""
        snapshot = self.tui.snapshot
        known = snapshot.runs if snapshot else ()
        marked = [run for run in known if run.path in self.tui.marked]
        return marked or [run for run in known if run.plots.names][:4]

    def show(self, snapshot: FeedSnapshot) -> None:
        runs = self.runs
        pane = self.query_one(PlotPane)
        pane.border_title = f"{self._what} of {len(runs)} run{'s' if len(runs) != 1 else ''}"
        if list(map(id, runs)) != list(map(id, self._compared)):
            self._compared = runs
            pane.forget()
        pane.show(runs[0] if runs else self.tui.nobody, self.look)
        width = max(20, self.size.width - 4)
        self.query_one("#table", Static).update(table_text(runs, width, self.look))

    def action_choose(self) -> None:
        if (snapshot := self.tui.snapshot) is not None:
            chosen = Pick(
                "compare", [(str(run.path), run.name) for run in snapshot.runs], set(map(str, self.tui.marked))
            )
            self.app.push_screen(chosen, self._chosen)

    def _chosen(self, paths: set[str] | None) -> None:
        if paths is not None and (snapshot := self.tui.snapshot) is not None:
            self.tui.marked = {run.path for run in snapshot.runs if str(run.path) in paths}
            self._again()

    def action_what(self) -> None:
        self._what = WHAT[(WHAT.index(self._what) + 1) % len(WHAT)]
        self._again()

    def _again(self) -> None:
        pane: Pane = self.query_one(PlotPane)
        pane.forget()
        self.repaint()
