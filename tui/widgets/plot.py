"""A pane with curves: zoomed and panned by keys, wheel or drag; every plot of a screen shares one `Window`."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text
from textual import events
from textual.message import Message

from tui.look import NARROW, Look
from tui.snapshot import RunSnapshot
from tui.views.window import Window
from tui.widgets.pane import Pane

__all__ = ["PlotPane"]

PlotView = Callable[[RunSnapshot, int, int, Look, Window], Text]


class PlotPane(Pane):
    """``PlotPane(loss_text, look, title="loss", id="loss")``."""

    class Seen(Message):
        """The person wants to see another part of the curves."""

        def __init__(self, window: Window) -> None:
            super().__init__()
            self.window = window

    def __init__(self, view: PlotView, look: Look, *, title: str = "", id: str | None = None) -> None:
        super().__init__(
            lambda run, width, height, look: view(run, width, height, look, self.window), look, title=title, id=id
        )
        self.window = Window()
        self._held_at: int | None = None

    def see(self, window: Window) -> None:
        """Shows that part."""
        if window != self.window:
            self.window, self._said = window, None
            part = "" if window.whole else f"{100 * window.start:.0f}-{100 * window.end:.0f}% of it, 0 fits"
            self.border_subtitle = " ".join(
                word for word in (f"by {window.axis}", "log" if window.log else "", part) if word
            )
            self.refresh()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        if self._zooms(event):
            event.stop()
            self._ask(self.window.zoomed(1.4, self._share(event.x)))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        if self._zooms(event):
            event.stop()
            self._ask(self.window.zoomed(1 / 1.4, self._share(event.x)))

    def _zooms(self, event: events.MouseEvent) -> bool:
        """On a phone the wheel is a swipe, which turns the page."""
        return event.ctrl or (self.has_focus and self.app.size.width >= NARROW)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._held_at = event.x if not self.window.whole else None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._held_at is not None and event.button and event.x != self._held_at:
            event.stop()
            self._ask(self.window.panned((self._held_at - event.x) / max(1, self.content_size.width)))
            self._held_at = event.x

    def on_mouse_up(self, event: events.MouseUp) -> None:
        self._held_at = None

    def _share(self, x: int) -> float:
        return min(1.0, max(0.0, x / max(1, self.content_size.width)))

    def _ask(self, window: Window) -> None:
        self.post_message(self.Seen(window))
