"""The app: asks the feed for a snapshot at most twice a second and holds it for the screens to watch."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.app import App
from textual.binding import Binding, BindingType
from textual.reactive import reactive

from tui.draw import UNICODE, Glyphs
from tui.feed import Feed
from tui.screens.runs import RunsScreen
from tui.screens.watch import WatchScreen
from tui.snapshot import FeedSnapshot

__all__ = ["OndeviceTui"]

POLL_S = 0.5
_CATCH_UP_S = 0.05  # between two budgets of a feed that still reads a long story


class OndeviceTui(App[None]):
    """``OndeviceTui(Feed([folder])).run()``; with ``opened`` it begins at the Watch screen of that run."""

    CSS_PATH = "app.tcss"
    TITLE = "ondevice"
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+q,ctrl+c", "quit", "quit", show=False, priority=True)]

    snapshot: reactive[FeedSnapshot | None] = reactive(None)

    def __init__(
        self, feed: Feed, *, opened: Path | None = None, glyphs: Glyphs = UNICODE, poll_s: float = POLL_S
    ) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-wide"), (110, "-roomy")]
        self.VERTICAL_BREAKPOINTS = [(0, "-tiny"), (12, "-short"), (30, "-tall")]
        self._feed, self._opened, self._glyphs, self._poll_s = feed, opened, glyphs, poll_s

    def on_mount(self) -> None:
        self.set_class(self._glyphs is not UNICODE, "-ascii")
        self.push_screen(RunsScreen(self._glyphs))
        if self._opened is not None:
            self.push_screen(WatchScreen(self._opened, self._glyphs))
        self._follow()

    @work(exclusive=True)
    async def _follow(self) -> None:
        """Reads files in a thread, one read at a time; screens hear of it only when something changed."""
        while True:
            self.snapshot = await asyncio.to_thread(self._feed.snapshot)
            await asyncio.sleep(_CATCH_UP_S if self.snapshot.catching_up else self._poll_s)

    async def action_back(self) -> None:
        """Leaves the screen on top unless it is the list of runs."""
        if not isinstance(self.screen, RunsScreen):
            self.pop_screen()
