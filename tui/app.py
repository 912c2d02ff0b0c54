"""The app: asks the feed for a snapshot about once a second and holds it, and which run one looks at, for the screens.

Hidden, it reads nothing and paints nothing. Commands and letters go through `tui.asking` and `tui.jobs`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Protocol

from textual import events, work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.reactive import reactive
from textual.screen import Screen

from ondevice.run.directory import home
from tui.jobs import Jobs
from tui.look import NARROW, UNICODE, Glyphs, Look
from tui.places import screen_named
from tui.screens.base import TABS, BaseScreen
from tui.screens.menu import Menu
from tui.snapshot import FeedSnapshot, RunSnapshot
from tui.theme import THEMES, choose_theme, palette_of
from tui.widgets.bars import Key

__all__ = ["OndeviceTui", "Source"]

POLL_S = 1.0
_CATCH_UP_S = 0.05  # between two budgets of a feed that still reads a long story
_ANSWER_S = 0.3  # while a request waits for its answer


class Source(Protocol):
    """Where snapshots come from: `tui.feed.Feed`, a demo, or a test's own."""

    def snapshot(self) -> FeedSnapshot: ...


class OndeviceTui(App[None]):
    """``OndeviceTui(Feed([folder])).run()``; with ``opened`` it begins at the Watch screen of that run."""

    CSS_PATH = "app.tcss"
    TITLE = "ondevice"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q,ctrl+c", "quit", "quit", show=False, priority=True),
        Binding("q", "quit", "quit", show=False),
        Binding("escape", "back", "back", show=False),
        Binding("colon,ctrl+p", "command_palette", "commands", show=False),
        Binding("T", "next_theme", "colours", show=False),
        *(
            Binding("question_mark" if key == "?" else key, action.removeprefix("app."), word, show=False)
            for key, word, action in TABS
        ),
    ]

    snapshot: reactive[FeedSnapshot | None] = reactive(None)

    def __init__(
        self, feed: Source, *, opened: Path | None = None, glyphs: Glyphs = UNICODE, poll_s: float = POLL_S,
        start_screen: str = "",
    ) -> None:  # fmt: skip
        theme = choose_theme(os.environ)  # before Textual takes NO_COLOR away
        super().__init__(ansi_color=True if theme == "terminal" else None)  # NO_COLOR is judged by it right here
        for each in THEMES:
            self.register_theme(each)
        self.HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW, "-wide"), (110, "-roomy")]
        self.VERTICAL_BREAKPOINTS = [(0, "-tiny"), (12, "-short"), (20, "-tall")]
        self.look = Look(glyphs, palette_of(theme))
        self.jobs = Jobs()
        self.selected = opened
        self.marked: set[Path] = set()
        self.nobody = RunSnapshot(name="", path=self.folder, state="unknown")  # for panes that need some run
        self._feed, self._poll_s = feed, poll_s
        self._begin = start_screen or ("watch" if opened else "runs")
        self._look_now = asyncio.Event()
        self.theme = theme
        self.set_reactive(App.ansi_color, None)  # from now on as the theme says

    @property
    def folder(self) -> Path:
        """Where runs lie unless said otherwise."""
        return home() / "runs"

    def on_mount(self) -> None:
        self.set_class(self.look.glyphs is not UNICODE, "-ascii")
        self.push_screen(screen_named(self._begin)())
        self._follow()

    def on_unmount(self) -> None:
        self.jobs.let_go()

    @work(exclusive=True, group="feed")
    async def _follow(self) -> None:
        """Reads files in a thread, one read at a time; screens hear of it only when something changed."""
        while True:
            if not self.app_focus:
                await self._wait(None)
                continue
            self.snapshot = await asyncio.to_thread(self._feed.snapshot)
            self._tell_news()
            await self._wait(self._pause_s(self.snapshot))

    async def _wait(self, seconds: float | None) -> None:
        """Until the time is over or someone wants to look now."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._look_now.wait(), seconds)
        self._look_now.clear()

    def _pause_s(self, snapshot: FeedSnapshot) -> float:
        run = self.selected_run()
        if snapshot.catching_up:
            return _CATCH_UP_S
        open_asks = run is not None and run.alive and any(ask.state == "asked" for ask in run.asks)
        return min(_ANSWER_S, self._poll_s) if open_asks or self.jobs.words else self._poll_s

    def _tell_news(self) -> None:
        for well, sentence in self.jobs.news():
            self.notify(sentence, severity="information" if well else "error", markup=False, timeout=12)
        if self.jobs.words and isinstance(self.screen, BaseScreen):
            self.screen.repaint()

    def look_again(self) -> None:
        """Reads at once instead of in a second."""
        self._look_now.set()

    def on_app_focus(self, event: events.AppFocus) -> None:
        self.look_again()

    def select(self, path: Path) -> None:
        self.selected = path

    def selected_run(self) -> RunSnapshot | None:
        """The run one looks at; the first of the list until one is chosen, a sentence where it is gone."""
        if self.snapshot is None:
            return None
        if self.selected is None:
            self.selected = self.snapshot.runs[0].path if self.snapshot.runs else None
        if self.selected is None:
            sentence = "There are no runs yet: `ondevice quickstart` makes the first, or press 7."
            return RunSnapshot(name="no run", path=self.folder, state="unknown", trouble=(sentence,))
        return self.snapshot.find(self.selected) or _vanished(self.selected)

    def mark(self, path: Path) -> None:
        """For Compare, or no longer."""
        self.marked ^= {path}

    def action_go(self, name: str) -> None:
        """Another screen, in place of this one."""
        if isinstance(self.screen, BaseScreen) and name != self.screen.NAME:
            self.switch_screen(screen_named(name)())

    async def action_back(self) -> None:
        """Closes what lies on top; else back to the list of runs."""
        if isinstance(self.screen, BaseScreen):
            self.action_go("runs")
        elif len(self.screen_stack) > 2:
            self.pop_screen()

    def action_menu(self) -> None:
        self.open_menu("screens", TABS)

    def open_menu(self, title: str, keys: Sequence[Key]) -> None:
        """A list to touch; what is chosen is done by the screen below."""
        below = self.screen

        async def act(action: str | None) -> None:
            if action is not None:
                await below.run_action(action)

        self.push_screen(Menu(title, keys, self.look.glyphs), act)

    def action_next_theme(self) -> None:
        names = [theme.name for theme in THEMES]
        self.theme = names[(names.index(self.theme) + 1) % len(names)] if self.theme in names else names[0]

    def watch_theme(self, theme: str) -> None:
        self.look = replace(self.look, palette=palette_of(theme))
        if self.is_running and isinstance(self.screen, BaseScreen):
            self.screen.refresh_bars()

    @staticmethod
    def keys_of(action: str) -> Sequence[Key]:
        """The keys of the screen an action of `TABS` leads to."""
        return screen_named(action.split("'")[1]).KEYS

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """What the command palette offers: places, what this screen can do, colours."""
        for key, word, action in TABS:
            yield SystemCommand(f"Go to {word}", f"key {key}", lambda action=action: self._act(action))
        if isinstance(screen, BaseScreen):
            for key, word, action in screen.KEYS:
                yield SystemCommand(word.capitalize(), f"key {key}", lambda action=action: self._act(action))
        yield SystemCommand("Colours", "dark, light, the terminal's own", self.action_next_theme)
        yield SystemCommand("Quit", "trainers go on", self.exit)

    def _act(self, action: str) -> None:
        self.call_later(self.screen.run_action, action)


def _vanished(path: Path) -> RunSnapshot:
    sentence = f"{path.name} was deleted or renamed; escape goes back."
    return RunSnapshot(name=path.name, path=path, state="gone", trouble=(sentence,))
