"""The feed: tails the files of many runs into one frozen `FeedSnapshot`. No Textual, no torch, no exceptions.

Used by one thread at a time. What cannot be read becomes a sentence in ``trouble``. Where nothing changed on disk,
`Feed.snapshot` gives the very same object again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir, list_runs
from tui.run_feed import RunFeed
from tui.snapshot import FeedSnapshot, RunSnapshot

__all__ = ["Feed"]


class Feed:
    """Watches folders; each is a run directory or a folder of them: ``Feed([home() / "runs"]).snapshot()``.

    A snapshot takes about ``budget_s`` at most; what a long run has left is read by the next (`catching_up`). While
    nobody looks, ask for none: the feed costs nothing in between.
    """

    def __init__(
        self, folders: Sequence[Path], *, budget_s: float = 0.25, clock: Callable[[], float] = time.time
    ) -> None:
        self._folders = tuple(folder.expanduser().absolute() for folder in folders)
        self._budget_s, self._clock = budget_s, clock
        self._feeds: dict[Path, RunFeed] = {}
        self._named = {path for path in self._folders if _is_run(path)}
        self._last = FeedSnapshot()

    @property
    def folders(self) -> tuple[Path, ...]:
        """What is watched."""
        return self._folders

    def snapshot(self) -> FeedSnapshot:
        """Reads what is new and gives the state of all runs."""
        trouble: list[str] = []
        until = time.monotonic() + self._budget_s
        paths = [path for folder in self._folders for path in self._runs_in(folder, trouble)]
        self._feeds = {path: self._feeds.get(path) or RunFeed(RunDir(path), clock=self._clock) for path in paths}
        runs = tuple(sorted(self._polled(until), key=_order))
        now = FeedSnapshot(runs=runs, trouble=tuple(trouble))
        if now != self._last:
            self._last = now
        return self._last

    def _polled(self, until: float) -> Iterator[RunSnapshot]:
        """Each run gets an equal share of the time that the runs before it left, those on top of the list first."""
        places = {run.path: place for place, run in enumerate(self._last.runs)}
        feeds = sorted(self._feeds.items(), key=lambda item: places.get(item[0], len(places)))
        for number, (_, feed) in enumerate(feeds):
            now = time.monotonic()
            yield feed.poll(now + max(0.0, until - now) / (len(feeds) - number))

    def _runs_in(self, folder: Path, trouble: list[str]) -> list[Path]:
        """Run directories of one watched folder; a run that was named stays in sight when it is gone."""
        if folder in self._named or _is_run(folder):
            self._named.add(folder)
            return [folder]
        if os.path.exists(folder) and not os.path.isdir(folder):
            trouble.append(f"{folder}: neither a run directory nor a folder of runs.")
        try:
            trouble += [f"{path}: cannot be looked into (no permission)." for path in _closed(folder)]
            return [run.path for run in list_runs(folder)]
        except OndeviceError as error:
            trouble.append(str(error))
        except OSError as error:
            trouble.append(f"{folder}: cannot be read ({error.strerror}).")
        return []


def _closed(folder: Path) -> list[str]:
    """Folders in it that this user may not look into: there may be runs."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.path for entry in entries if entry.is_dir() and not os.access(entry.path, os.X_OK))


def _is_run(path: Path) -> bool:
    try:
        return (path / "run.json").is_file()
    except OSError:
        return False


def _order(run: RunSnapshot) -> tuple[bool, float, str]:
    """Living runs by name, then the others, last active first: rows stay where they are while runs train."""
    return (True, -(run.last_t or 0.0), run.name) if not run.alive else (False, 0.0, run.name)
