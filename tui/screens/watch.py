"""The Watch screen: one run at a glance. A phone sees one pane at a time, a laptop pages of them, a wide one all."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import ClassVar

from textual import events
from textual.binding import BindingType
from textual.containers import Grid
from textual.widget import Widget

from tui.look import NARROW
from tui.screens.base import bindings
from tui.screens.control import CONTROL_KEYS, ControlScreen
from tui.screens.plots import PLOT_KEYS, PlotScreen
from tui.snapshot import EVENT_GROUPS, FeedSnapshot
from tui.views.head import head_rows, head_text
from tui.views.heat import heat_text
from tui.views.learned import saves_text, validation_text
from tui.views.loss import loss_text
from tui.views.machine import machine_text
from tui.views.pace import now_text, pace_text
from tui.views.story import events_text, samples_text
from tui.widgets.bars import Key
from tui.widgets.pane import Head, LinesPane, Pane
from tui.widgets.plot import PlotPane

__all__ = ["PAGES", "WatchScreen", "pages_for"]

Page = tuple[tuple[tuple[str, int], ...], ...]  # rows of (pane, columns of twelve)

ORDER = ("now", "loss", "heat", "pace", "machine", "validation", "samples", "saves", "events")
ALL: Page = (
    (("loss", 8), ("pace", 4)),
    (("heat", 5), ("machine", 4), ("validation", 3)),
    (("samples", 4), ("saves", 4), ("events", 4)),
)
PAGES: tuple[Page, ...] = (
    ((("loss", 7), ("pace", 5)), (("heat", 7), ("machine", 5))),
    ((("samples", 7), ("validation", 5)), (("events", 7), ("saves", 5))),
)
_LEAST_ROWS = 9  # a pane on a phone
_BARS, _BARS_NARROW = 7, 10  # rows around the panes at the most: they never rearrange because a sentence came or went


def pages_for(width: int, height: int) -> tuple[Page, ...]:
    """What a body of that size shows at a time."""
    if width >= 110 and height >= 24:
        return (ALL,)
    if width >= NARROW:
        return PAGES if height >= 12 else tuple((row,) for page in PAGES for row in page)
    each = max(1, height // _LEAST_ROWS)
    return tuple(tuple(((name, 12),) for name in ORDER[at : at + each]) for at in range(0, len(ORDER), each))


class WatchScreen(PlotScreen, ControlScreen):
    """Watches the selected run. Holds where one looks, and nothing of the run."""

    NAME = "watch"
    KEYS: ClassVar[tuple[Key, ...]] = (
        *CONTROL_KEYS,
        ("←", "previous", "screen.page(-1)"),
        ("→", "next", "screen.page(1)"),
        ("z", "zoom pane", "screen.one_pane"),
        *PLOT_KEYS,
        ("f", "filter events", "screen.filter"),
    )
    TOUCH = (("◀", "screen.page(-1)"), ("screens", "app.menu"), ("actions", "screen.actions"), ("▶", "screen.page(1)"))
    BINDINGS: ClassVar[list[BindingType]] = bindings(KEYS)

    def __init__(self) -> None:
        super().__init__()
        self._page, self._alone, self._group = 0, "", ""
        self._swiped_from: int | None = None
        self._arranged: object = None

    def body(self) -> Iterable[Widget]:
        look = self.look
        yield Head(head_text, look, id="head")
        with Grid(id="panes"):
            yield Pane(now_text, look, title="now", id="now")
            yield PlotPane(loss_text, look, title="loss", id="loss")
            yield PlotPane(heat_text, look, title="heat and duty", id="heat")
            yield Pane(pace_text, look, title="pace", id="pace")
            yield Pane(machine_text, look, title="device", id="machine")
            yield Pane(validation_text, look, title="validation", id="validation")
            yield LinesPane(samples_text, look, title="samples", id="samples")
            yield Pane(saves_text, look, title="checkpoints", id="saves")
            yield LinesPane(events_text, look, title="events", id="events")

    def show(self, snapshot: FeedSnapshot) -> None:
        run = self.run_now
        head = self.query_one("#head", Pane)
        rows = head_rows(run, self.size.width - 2, self.look) if run else 3
        rows = min(5 if self.size.height >= 20 else 4, rows) if self.size.height >= 12 else 1
        if head.styles.height is None or head.styles.height.value != rows:
            head.styles.height = rows
            self.call_after_refresh(self.repaint)
        self._arrange()
        for pane in self.query(Pane):
            pane.show(run, self.look)

    @property
    def pages(self) -> tuple[Page, ...]:
        bars = _BARS_NARROW if self.size.width < NARROW else _BARS
        return pages_for(self.size.width, self.size.height - bars)

    @property
    def place(self) -> str:
        if not self.is_mounted or self._alone:
            return ""
        pages = len(self.pages)
        return f" {self._page % pages + 1}/{pages}" if pages > 1 else ""

    def _arrange(self) -> None:
        """Shows the panes of the page, in its grid."""
        pages = self.pages
        self._page %= len(pages)
        page: Page = (((self._alone, 12),),) if self._alone else pages[self._page]
        grid = self.query_one("#panes", Grid)
        shape = (self._page, page)
        if self._arranged == shape:
            return
        self._arranged = shape
        grid.styles.grid_size_columns, grid.styles.grid_size_rows = 12, len(page)
        tall = page[0][0][0] == "now" or (any(name == "loss" for name, _ in page[0]) and len(page[0]) > 1)
        taller = "4fr" if tall else "3fr"
        grid.styles.grid_rows = " ".join([taller, *["3fr"] * (len(page) - 1)])
        shown = {name: span for row in page for name, span in row}
        for pane in grid.children:
            pane.display = pane.id in shown
            pane.styles.column_span = shown.get(pane.id or "", 1)
        for number, name in enumerate(name for row in page for name, _ in row):
            grid.move_child(self.query_one(f"#{name}"), before=number)
        if self.focused is None or self.focused.id not in shown:
            self.query_one(f"#{page[0][0][0]}").focus()
        self.refresh_bars()

    def on_resize(self, event: events.Resize) -> None:
        self._arranged = None

    def action_page(self, by: int) -> None:
        """The panes before or after these."""
        if self._alone:
            self._alone = ""
        else:
            self._page = (self._page + by) % len(self.pages)
        self._arranged = None
        self.repaint()

    def action_one_pane(self) -> None:
        """The pane that has the focus, alone; or all again."""
        shown = [name for row in self.pages[self._page % len(self.pages)] for name, _ in row]
        focused = self.focused.id if self.focused is not None else None
        self._alone = "" if self._alone else focused if focused in shown else shown[0]
        self._arranged = None
        self.repaint()

    def action_filter(self) -> None:
        """Events of the next group; after the last of all."""
        groups = ("", *EVENT_GROUPS)
        self._group = groups[(groups.index(self._group) + 1) % len(groups)]
        pane = self.query_one("#events", LinesPane)
        pane.border_title = f"events: {self._group}" if self._group else "events"
        pane.look_with(partial(events_text, group=self._group))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """A swipe on a phone: the next pane, where the pane itself has nothing left to scroll."""
        if len(self.pages) > 1 and self.size.width < NARROW:
            self.action_page(1)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        if len(self.pages) > 1 and self.size.width < NARROW:
            self.action_page(-1)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        self._swiped_from = event.screen_x

    def on_mouse_up(self, event: events.MouseUp) -> None:
        """A swipe sideways."""
        began, self._swiped_from = self._swiped_from, None
        if began is not None and abs(event.screen_x - began) >= 12 and self.window.whole:
            self.action_page(1 if event.screen_x < began else -1)
