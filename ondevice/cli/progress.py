"""What a person sees while a command works: a live line in a terminal, plain lines in a pipe, or JSON lines.

Displays are told things by the loop; they decide nothing and know nothing but how to print.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ondevice.cli.common import duration, for_terminal, mute
from ondevice.cli.folding import WIDEST, folded, tell

__all__ = [
    "RESTED",
    "JsonDisplay",
    "LiveDisplay",
    "PlainDisplay",
    "QuietDisplay",
    "make_display",
    "rate_words",
    "status_line",
]

PLAIN_EVERY_S = 10.0
RESTED = 0.95  # of the rate in steps: above this there is nothing to tell of rests


def status_line(status: dict[str, Any], width: int = 80) -> str:
    """Loss, tokens a second, time left, heat and memory, the most useful first, cut to the width of the screen."""
    step, steps = status.get("step", 0), status.get("steps") or 1
    parts = [f"{100 * step / steps:3.0f}%", f"step {step}/{steps}"]
    if status.get("hold"):
        parts.append(str(status["hold"]))
    if status.get("simulated"):
        parts.append(f"sim x{status['simulated']['speed']:g}")
    for key, text in (("loss", "loss {:.3f}"), ("best_loss", "best val {:.3f}")):
        if status.get(key) is not None:
            parts.append(text.format(status[key]))
    if rate := rate_words(status):
        parts.append(rate)
    if status.get("eta_s") is not None and step < steps:
        parts.append(f"left {duration(status['eta_s'])}")
    if status.get("battery_c") is not None:
        parts.append(f"battery {status['battery_c']:.0f} C")
    if (status.get("duty") or 1.0) < 1.0:
        parts.append(f"duty {100 * status['duty']:.0f} %")
    if status.get("rss_mb") is not None:
        parts.append(f"{status['rss_mb']:,.0f} MB")
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 2 + len(part) <= width:
            line += "  " + part
    return line


def rate_words(status: dict[str, Any]) -> str:
    """Tokens a second in steps, and with rests where there were any: ``500 tok/s (250 sustained)``."""
    if status.get("tok_s") is None:
        return ""
    rested = (status.get("tok_s_sustained") or math.inf) < RESTED * status["tok_s"]
    return f"{status['tok_s']:,.0f} tok/s" + (f" ({status['tok_s_sustained']:,.0f} sustained)" if rested else "")


@contextmanager
def _unheard() -> Iterator[None]:
    """Where nobody can read any more (a closed pipe or terminal) the work goes on unseen."""
    try:
        yield
    except OSError:
        mute(sys.stdout)


def _tell(text: str) -> None:
    with _unheard():
        print(text, flush=True)


class QuietDisplay:
    """Says nothing; errors and the result are the command's business."""

    def status(self, status: dict[str, Any]) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def result(self, text: str) -> None:
        """The one thing that --quiet leaves."""
        tell(text)

    def close(self) -> None:
        pass


class JsonDisplay(QuietDisplay):
    """One JSON object a line."""

    def status(self, status: dict[str, Any]) -> None:
        _tell(json.dumps({"kind": "status", **status}))

    def say(self, text: str) -> None:
        _tell(json.dumps({"kind": "say", "text": text}, ensure_ascii=False))


class PlainDisplay(QuietDisplay):
    """A line now and then, for logs and pipes."""

    def __init__(self) -> None:
        self._shown = 0.0

    def status(self, status: dict[str, Any]) -> None:
        now = time.monotonic()
        if now - self._shown >= PLAIN_EVERY_S:
            self._shown = now
            _tell(status_line(status, 200))

    def say(self, text: str) -> None:
        _tell(text)


class LiveDisplay(QuietDisplay):
    """One line that is written over, with messages above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False, stderr=False)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._live.start()

    def status(self, status: dict[str, Any]) -> None:
        from rich.text import Text

        with _unheard():
            line = for_terminal(status_line(status, self._console.width - 1))
            self._live.update(Text(line, no_wrap=True), refresh=True)

    def say(self, text: str) -> None:
        with _unheard():
            self._console.print(folded(for_terminal(text), self._width()), markup=False, soft_wrap=False)

    def _width(self) -> int:
        return min(WIDEST, self._console.width)

    def close(self) -> None:
        with _unheard():
            self._live.stop()


def make_display(*, quiet: bool, as_json: bool) -> QuietDisplay:
    """The display that suits the flags and where the output goes."""
    if as_json:
        return JsonDisplay()
    if quiet:
        return QuietDisplay()
    return LiveDisplay() if sys.stdout.isatty() else PlainDisplay()
