"""A renderable that is made when its width is known, so that panes fit whatever a terminal is turned into."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

__all__ = ["AnyWidth"]


class AnyWidth:
    """``AnyWidth(lambda width: Text("x" * width))``."""

    def __init__(self, make: Callable[[int], Text]) -> None:
        self._make = make

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._make(options.max_width)
