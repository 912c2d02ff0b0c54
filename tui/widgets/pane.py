"""Panes: a frame with a title around what a view says of a run. They never change the layout when a run changes."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.text import Text
from textual import events
from textual.widget import Widget

from tui.look import Look
from tui.snapshot import RunSnapshot

__all__ = ["Head", "LinesPane", "Pane", "View"]

View = Callable[[RunSnapshot, int, int, Look], Text]
LinesView = Callable[[RunSnapshot, Look], Text]

_WRAPPER = Console(width=80, color_system=None)


class Pane(Widget, can_focus=True):
    """``Pane(pace_text, look, title="pace", id="pace")``; `show` hands it the run of now."""

    def __init__(self, view: View, look: Look, *, title: str = "", id: str | None = None) -> None:
        super().__init__(id=id, classes="pane")
        self._view, self.look = view, look
        self._run: RunSnapshot | None = None
        self._said: Text | None = None
        self._of: tuple[RunSnapshot | None, Look] = (None, look)  # what was last said is said of these
        self.border_title = title

    def show(self, run: RunSnapshot | None, look: Look | None = None) -> None:
        """Paints the run if that looks different."""
        self._run, self.look = run, look or self.look
        if not self.display or not self.content_size.width:
            self._said = None
            return
        if self._said is not None and self._of[0] is run and self._of[1] is self.look:
            return
        before, self._said = self._said, self._say()
        if before != self._said:
            self.refresh()

    def forget(self) -> None:
        """Paints anew at the next `show`, whatever was painted before."""
        self._said = None
        self.refresh()

    def _say(self) -> Text:
        self._of = self._run, self.look
        return self.say()

    def say(self) -> Text:
        """What it would show now."""
        width, height = self.content_size
        if self._run is None or width < 1 or height < 1:
            return Text("")
        return self._view(self._run, width, height, self.look)

    def on_resize(self, event: events.Resize) -> None:
        self.forget()

    def render(self) -> Text:
        if self._said is None:
            self._said = self._say()
        return self._said


class Head(Pane, can_focus=False):
    """The lines above the panes, which the focus passes by."""


class LinesPane(Pane):
    """A text longer than the pane, scrolled by keys, wheel or swipe; the frame says where one is."""

    def __init__(self, view: LinesView, look: Look, *, title: str = "", id: str | None = None) -> None:
        super().__init__(lambda run, width, height, look: view(run, look), look, title=title, id=id)
        self._top = 0
        self._lines: tuple[Text | None, int, list[Text]] = (None, 0, [])
        self._middle: int | None = None

    def look_with(self, view: LinesView) -> None:
        """Another view of the same run, from its beginning."""
        self._view, self._said, self._top = (lambda run, width, height, look: view(run, look)), None, 0
        self.refresh()

    def place(self, line: int) -> None:
        """Shows that line in the middle as soon as there is something to show."""
        self._middle = line
        self.refresh()

    @property
    def at_end(self) -> bool:
        return self._top >= self._last_top

    @property
    def at_start(self) -> bool:
        return self._top <= 0

    @property
    def _last_top(self) -> int:
        return max(0, len(self._lines[2]) - self.content_size.height)

    def scroll_lines(self, count: int) -> None:
        """Down by that many lines, or up."""
        self._top = min(self._last_top, max(0, self._top + count))
        self._tell_place()
        self.refresh()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        if not self.at_end:
            event.stop()
            self.scroll_lines(3)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        if not self.at_start:
            event.stop()
            self.scroll_lines(-3)

    def render(self) -> Text:
        said, width, height = super().render(), *self.content_size
        if self._lines[0] is not said or self._lines[1] != width:
            wrapped = list(said.wrap(_WRAPPER, max(1, width), no_wrap=False)) if said.plain else []
            self._lines = said, width, wrapped
            wanted = self._top if self._middle is None or not wrapped else max(0, self._middle - height // 2)
            self._middle = None if wrapped else self._middle
            self._top = min(wanted, self._last_top)
            self.call_after_refresh(self._tell_place)
        return Text("\n", no_wrap=True).join(self._lines[2][self._top : self._top + height])

    def _tell_place(self) -> None:
        lines, height = len(self._lines[2]), self.content_size.height
        place = f"{self._top + 1}-{min(lines, self._top + height)} of {lines}" if lines > height > 0 else ""
        if place != (self.border_subtitle or ""):
            self.border_subtitle = place
