"""``ondevice status --watch``: a few lines that are written over every second while a run lives. No TUI, no telemetry.

On a dumb terminal or in a pipe, where nothing can be written over, it prints a line now and then instead.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Any

from ondevice.cli.common import duration, for_terminal
from ondevice.cli.folding import columns
from ondevice.cli.status_text import cut, one_line, outlook, pace_lines, share_of
from ondevice.run.directory import RunDir
from ondevice.run.liveness import Liveness, read_liveness, read_status
from ondevice.run.telemetry import as_number
from ondevice.run.usage import Usage

__all__ = ["follow"]

EVERY_S = 1.0
PLAIN_EVERY_S = 10.0
NARROW, WIDE = 40, 79  # of the progress bar's line
_DUMB = ("", "dumb", "unknown")


def follow(run: RunDir) -> bool:
    """Shows the run until it ends (False) or whoever watches leaves with Ctrl-C (True)."""
    overwrite = sys.stdout.isatty() and os.environ.get("TERM", "") not in _DUMB
    screen = _Block() if overwrite else _Log()
    try:
        while (alive := read_liveness(run)).holder is not None:
            screen.show(run, alive, read_status(run))
            time.sleep(EVERY_S)
    except KeyboardInterrupt:
        print("" if overwrite else f"No longer watching {run.name}; it goes on.", flush=True)
        return True
    screen.clear()
    return False


class _Log:
    """A line whenever the state changes, and every ten seconds."""

    def __init__(self) -> None:
        self._told, self._told_at = "", float("-inf")

    def show(self, run: RunDir, alive: Liveness, status: dict[str, Any]) -> None:
        if alive.state == self._told and time.monotonic() - self._told_at < PLAIN_EVERY_S:
            return
        self._told, self._told_at = alive.state, time.monotonic()
        found = outlook(alive, status, Usage.from_json(status.get("usage")), price=None)
        width = min(WIDE, shutil.get_terminal_size().columns)
        line = for_terminal(one_line(run.name, alive.state, status, found, width=width))
        sys.stdout.write(line + "\n")  # at once: Ctrl-C may come in between
        sys.stdout.flush()

    def clear(self) -> None:
        pass


class _Block:
    """Lines that are written over in place; none is as wide as the screen, so that none breaks."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._columns = 0

    def show(self, run: RunDir, alive: Liveness, status: dict[str, Any]) -> None:
        size = shutil.get_terminal_size()
        lines = [cut(for_terminal(line), size.columns - 1) for line in _lines(run, alive, status, size.columns)]
        lines = lines[: max(1, size.lines - 1)]
        sys.stdout.write(self._back(size.columns) + "\n".join(lines))
        sys.stdout.flush()
        self._shown, self._columns = lines, size.columns

    def clear(self) -> None:
        """Gives the place to what is printed next."""
        sys.stdout.write(self._back(shutil.get_terminal_size().columns))
        sys.stdout.flush()

    def _back(self, now_columns: int) -> str:
        """To the first cell of the block, and everything below it gone. A screen made narrower broke the lines."""
        if not self._shown:
            return ""
        narrower = now_columns < self._columns
        broken = sum((columns(line) - 1) // now_columns for line in self._shown if line) if narrower else 0
        up = len(self._shown) - 1 + broken
        return (f"\x1b[{up}A" if up else "") + "\r\x1b[J"


def _lines(run: RunDir, alive: Liveness, status: dict[str, Any], width: int) -> Iterator[str]:
    found = outlook(alive, status, Usage.from_json(status.get("usage")), price=None)
    yield f"{run.name}: {alive.state}" + _silence(alive)
    if status.get("hold"):
        yield f"  hold      {status['hold']}"
    if status.get("wait"):
        yield from _wrapped(f"  wait      {status['wait']}", width - 1)
    if (share := share_of(status)) is not None:
        yield f"  {_bar(share, min(WIDE, width) - 13)} {100 * share:3.0f} %"
        yield f"  step      {status['step']:,} of {status['steps']:,}"
    loss, best = as_number(status.get("loss")), as_number(status.get("best_loss"))
    if loss is not None:
        yield f"  loss      {loss:.4f}" + (f", best val {best:.4f}" if best is not None else "")
    yield from pace_lines(status, found, live=True)
    percent, plugged = as_number(status.get("battery_percent")), status.get("plugged")
    if percent is not None:
        yield f"  charge    {percent:.0f} %" + (
            ", plugged in" if plugged else ", on battery" if plugged is False else ""
        )
    if (rss_mb := as_number(status.get("rss_mb"))) is not None:
        yield f"  memory    {rss_mb:,.0f} MB"


def _silence(alive: Liveness) -> str:
    if alive.state != "asleep" or alive.age_s is None:
        return ""
    return f", silent for {duration(alive.age_s)}"


def _bar(share: float, width: int) -> str:
    room = max(4, min(width, NARROW))
    done = int(room * share)
    return "[" + "#" * done + "." * (room - done) + "]"


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, max(20, width), subsequent_indent=" " * 12)
