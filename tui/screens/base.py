"""What all screens share: where one is, the run one looks at, keys that can be touched, and what was asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widget import Widget

from tui.look import NARROW, Look
from tui.snapshot import FeedSnapshot, RunSnapshot
from tui.widgets.bars import AskLine, Cell, Cells, Key, TouchBar, keys_cells, tabs_cells
from tui.widgets.pane import LinesPane

if TYPE_CHECKING:
    from tui.app import OndeviceTui

__all__ = ["TABS", "BaseScreen", "bindings"]

TABS: tuple[Key, ...] = (
    ("1", "Runs", "app.go('runs')"),
    ("2", "Watch", "app.go('watch')"),
    ("3", "Saves", "app.go('checkpoints')"),
    ("4", "Compare", "app.go('compare')"),
    ("5", "Schedule", "app.go('schedule')"),
    ("6", "Device", "app.go('device')"),
    ("7", "New", "app.go('new')"),
    ("8", "Limits", "app.go('limits')"),
    ("?", "Help", "app.go('help')"),
)
_NAMED = {"esc": "escape", "space": "space", "←": "left", "→": "right", "?": "question_mark", "0": "0"}
_SIGNS = {"+": "plus", "-": "minus", "[": "left_square_bracket", "]": "right_square_bracket"}


def bindings(keys: Iterable[Key]) -> list[BindingType]:
    """The bindings of keys as they are shown; ``=`` does what ``+`` does, for keyboards that need shift."""
    found: list[BindingType] = []
    for key, word, action in keys:
        names = [_NAMED.get(key) or _SIGNS.get(key) or key]
        names += ["equals_sign"] if key == "+" else []
        found.append(Binding(",".join(names), action, word, show=False))
    return found


class BaseScreen(Screen[None]):
    """A screen of the app. Subclasses give `body` and `show`."""

    NAME: ClassVar[str] = ""
    KEYS: ClassVar[tuple[Key, ...]] = ()
    TOUCH: ClassVar[tuple[tuple[str, str], ...]] = (
        ("back", "app.back"), ("screens", "app.menu"), ("actions", "screen.actions"),
    )  # fmt: skip

    BINDINGS: ClassVar[list[BindingType]] = bindings(
        (
            ("up", "up", "screen.scroll_pane(-1)"),
            ("down", "down", "screen.scroll_pane(1)"),
            ("pageup", "up", "screen.scroll_pane(-10)"),
            ("pagedown", "down", "screen.scroll_pane(10)"),
        )
    )

    def compose(self) -> ComposeResult:
        yield Cells(id="tabs")
        yield from self.body()
        yield AskLine(self.look, id="asks")
        yield Cells(id="keys")
        plain = self.look.glyphs.plain
        yield TouchBar([(plain(word), action) for word, action in self.TOUCH], self.look.glyphs.axis, id="touch")

    def body(self) -> Iterable[Widget]:
        """What lies between the bars."""
        return ()

    def show(self, snapshot: FeedSnapshot) -> None:
        """Hands a snapshot to the widgets."""

    @property
    def place(self) -> str:
        """Which of several pages one sees."""
        return ""

    @property
    def tui(self) -> OndeviceTui:
        from tui.app import OndeviceTui

        assert isinstance(self.app, OndeviceTui)
        return self.app

    @property
    def look(self) -> Look:
        return self.tui.look

    @property
    def run_now(self) -> RunSnapshot | None:
        """The run one looks at, as it is now."""
        return self.tui.selected_run()

    def on_mount(self) -> None:
        self.watch(self.app, "snapshot", self._take)
        self.refresh_bars()

    def on_resize(self, event: events.Resize) -> None:
        self.refresh_bars()

    def on_screen_resume(self) -> None:
        self.call_after_refresh(self.repaint)

    def repaint(self) -> None:
        """Paints what is known already."""
        self._take(self.tui.snapshot)

    def _take(self, snapshot: FeedSnapshot | None) -> None:
        if snapshot is None or not self.is_current or not self.is_mounted:
            return
        self.query_one(AskLine).show(self.run_now, self.look, self.tui.jobs.words)
        self.show(snapshot)

    def refresh_bars(self) -> None:
        """Paints the bars in the colours and the width of now, and then all else."""
        width, narrow, place = self.size.width - 2, self.size.width < NARROW, self.place
        tabs = tabs_cells(TABS, f"app.go('{self.NAME}')", width - (len(place) if narrow else 0), self.look)
        last = (("?", "help", "app.go('help')"), ("q", "quit", "app.quit"))
        keys = keys_cells(self.KEYS, last, width - len(place), self.look)
        self._place_right(tabs if narrow else keys, width, place)
        self.query_one("#tabs", Cells).show([tabs])
        self.query_one("#keys", Cells).show([keys])
        self.call_after_refresh(self.repaint)

    def _place_right(self, cells: list[Cell], width: int, place: str) -> None:
        """Puts where one is at the end of a row that has room for it."""
        room = width - sum(len(text) for text, _, _ in cells)
        if place and len(place) <= room:
            cells.append((place.rjust(room), self.look.palette.dim, ""))

    async def on_cells_touched(self, event: Cells.Touched) -> None:
        event.stop()
        await self.run_action(event.action)

    def action_actions(self) -> None:
        """All this screen can do, as a list to touch."""
        self.tui.open_menu("actions", self.KEYS)

    def action_scroll_pane(self, lines: int) -> None:
        """The focused text, else the first that is shown."""
        panes = [self.focused, *(pane for pane in self.query(LinesPane) if pane.display)]
        pane = next((pane for pane in panes if isinstance(pane, LinesPane)), None)
        if pane is not None:
            pane.scroll_lines(lines)

    def complain(self, sentence: str) -> None:
        """Tells the person, where there is something to tell."""
        if sentence:
            self.notify(sentence, severity="warning", markup=False)
