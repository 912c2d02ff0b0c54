"""Progress of a dataset build or a pack: a line written over in a terminal, nothing in a pipe or with --quiet."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ondevice.data.dataset import Dataset
    from ondevice.run.schema import Config

__all__ = ["BuildProgress", "built"]


def built(config: Config, *, quiet: bool) -> Dataset:
    """The dataset that a config wishes for, built or opened, with its progress shown. Raises as `make_dataset`."""
    from ondevice.train.wish import make_dataset

    with BuildProgress(quiet=quiet) as progress:
        return make_dataset(config, progress)


class BuildProgress:
    """Called by the build with bytes done, bytes in all and the name of the phase; as a context it is closed."""

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

    def __enter__(self) -> BuildProgress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        if self._live and self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
