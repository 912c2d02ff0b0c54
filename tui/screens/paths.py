"""Paths a person may mean: completed from the disk while typing, and the texts of earlier runs."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from textual.suggester import Suggester

from ondevice.errors import OndeviceError
from ondevice.run.config import load_config
from ondevice.run.directory import RunDir
from tui.snapshot import RunSnapshot
from tui.words import fit

__all__ = ["PathSuggester", "complete", "earlier_texts"]

_MOST = 2000  # entries of a folder that are looked at


class PathSuggester(Suggester):
    """Offers the rest of a path."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        return complete(value)


def complete(value: str) -> str | None:
    """``~/not -> ~/notes``: the first entry in order that begins like that, of the last path in the text."""
    last = value.rpartition(";")[2]
    folder, _, start = last.strip().rpartition("/")
    if not last.strip() or (not folder and not last.strip().startswith("/") and not start):
        return None
    place = Path(os.path.expanduser(folder)) if folder else Path("/" if last.strip().startswith("/") else ".")
    try:
        with os.scandir(place) as entries:
            names = sorted(
                entry.name for entry, _ in zip(entries, range(_MOST), strict=False) if entry.name.startswith(start)
            )
    except OSError:
        return None
    names = [name for name in names if not name.startswith(".") or start.startswith(".")]
    return value + names[0][len(start) :] if names and names[0] != start else None


def earlier_texts(runs: Iterable[RunSnapshot]) -> list[tuple[str, str]]:
    """(words, paths) of the texts that earlier runs learned from, each once."""
    found: dict[str, str] = {}
    for run in runs:
        try:
            sources = load_config(str(RunDir(run.path).config)).data.sources
        except (OndeviceError, OSError):
            continue
        paths = "; ".join(source.path for source in sources if Path(source.path).exists())
        if paths:
            found.setdefault(paths, f"{run.name}: {fit(paths, 60)}")
    return [(words, paths) for paths, words in found.items()]
