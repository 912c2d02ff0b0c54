"""Progress of a dataset build: a line that is written over in a terminal, nothing in a pipe or with --quiet."""

from __future__ import annotations

import sys
import time

__all__ = ["BuildProgress"]


class BuildProgress:
    """Called by the build with bytes done, bytes in all and the name of the phase."""

    def __init__(self, *, quiet: bool) -> None:
        self._live = not quiet and sys.stderr.isatty()
        self._shown = 0.0

    def __call__(self, done: int, total: int, phase: str) -> None:
        now = time.monotonic()
        if not self._live or now - self._shown < 0.2:
            return
        self._shown = now
        share = f"{100 * done / total:3.0f}% of {total / 2**20:,.1f} MB" if total else ""
        print(f"\r\x1b[K{phase} {share}", end="", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._live and self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
