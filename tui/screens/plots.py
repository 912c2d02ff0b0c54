"""Keys that move all plots of a screen at once: nearer, earlier, another x, a log scale."""

from __future__ import annotations

from typing import ClassVar

from tui.plots import AXES
from tui.screens.base import BaseScreen
from tui.views.window import Window
from tui.widgets.bars import Key
from tui.widgets.plot import PlotPane

__all__ = ["PLOT_KEYS", "PlotScreen"]

PLOT_KEYS: tuple[Key, ...] = (
    ("a", "x axis", "screen.axis"),
    ("l", "log", "screen.log"),
    ("+", "zoom in", "screen.zoom(0.5)"),
    ("-", "zoom out", "screen.zoom(2.0)"),
    ("[", "earlier", "screen.pan(-0.25)"),
    ("]", "later", "screen.pan(0.25)"),
    ("0", "fit", "screen.fit"),
)


class PlotScreen(BaseScreen):
    """All its plots show the same part of a run."""

    AXES: ClassVar[tuple[str, ...]] = AXES

    @property
    def window(self) -> Window:
        """What they show."""
        return self.query(PlotPane).first().window

    def see(self, window: Window) -> None:
        for plot in self.query(PlotPane):
            plot.see(window)

    def on_plot_pane_seen(self, event: PlotPane.Seen) -> None:
        self.see(event.window)

    def action_zoom(self, factor: float) -> None:
        self.see(self.window.zoomed(factor))

    def action_pan(self, share: float) -> None:
        self.see(self.window.panned(share))

    def action_fit(self) -> None:
        self.see(self.window.fitted())

    def action_axis(self) -> None:
        self.see(self.window.next_axis(self.AXES))

    def action_log(self) -> None:
        self.see(self.window.with_log(not self.window.log))
