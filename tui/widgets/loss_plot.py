"""The loss plot: training as a line, validation of the mixture as marks."""

from __future__ import annotations

from rich.text import Text
from textual.widget import Widget

from tui.draw import Curve, Glyphs, chart
from tui.snapshot import RunSnapshot

__all__ = ["LossPlot", "loss_text"]


class LossPlot(Widget):
    """Fills the space it has."""

    def __init__(self, glyphs: Glyphs, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._glyphs = glyphs
        self._run: RunSnapshot | None = None
        self.border_title = "loss"

    def show(self, run: RunSnapshot) -> None:
        """Paints the run's curves."""
        self._run = run
        self.refresh()

    def render(self) -> Text:
        width, height = self.content_size
        return loss_text(self._run, width, height, self._glyphs) if self._run else Text("")


def loss_text(run: RunSnapshot, width: int, height: int, glyphs: Glyphs) -> Text:
    """The chart as Text of ``width`` by ``height`` cells."""
    mixture = next((source.curve for source in run.val if not source.name), ())
    curves = [
        Curve(name="train", points=run.loss_curve, style="cyan"),
        Curve(name="val", points=mixture, style="bold yellow", marks=True),
    ]
    return chart(curves, width=width, height=height, glyphs=glyphs)
