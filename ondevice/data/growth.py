"""What became of a folder since its text was read: files that are new, still being written, changed or gone.

Reads names, sizes and times, and the content of those files alone whose size or time is another than before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ondevice.data.sources import list_files
from ondevice.data.sources_walk import FileEntry
from ondevice.errors import DataError
from ondevice.run.files import sha256_of
from ondevice.run.schema import SourceConfig

__all__ = ["Growth", "look", "stayed"]

Known = Mapping[str, tuple[int, int, str]]
"""Size in bytes, mtime in ns and SHA-256 of each file that was read, by relative path."""

_HALF_WRITTEN = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".swp", ".lock", "~")
_CLOCKS_DIFFER_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Files of a folder against what is known of it; ``waiting`` are new ones that may not be complete yet."""

    new: tuple[FileEntry, ...]
    waiting: tuple[str, ...]
    changed: tuple[str, ...]
    vanished: tuple[str, ...]


def look(source: SourceConfig, known: Known, *, base: Path, now_s: float, settle_s: float) -> Growth:
    """The folder of a source now. A new file counts once nobody has written to it for ``settle_s`` seconds.

    Raises DataError where the folder cannot be read.
    """
    there = {entry.relative: entry for entry in list_files(source, base)}
    fresh = [entry for name, entry in there.items() if name not in known and entry.size]
    waiting = {entry.relative for entry in fresh if _is_being_written(entry, now_s, settle_s)}
    return Growth(
        new=tuple(entry for entry in fresh if entry.relative not in waiting),
        waiting=tuple(sorted(waiting)),
        changed=tuple(name for name, entry in there.items() if name in known and _differs(entry, known[name])),
        vanished=tuple(sorted(set(known) - set(there))),
    )


def _is_being_written(entry: FileEntry, now_s: float, settle_s: float) -> bool:
    """A time in the future comes from another clock, and says nothing."""
    age_s = now_s - entry.mtime_ns / 1e9
    return entry.relative.lower().endswith(_HALF_WRITTEN) or -_CLOCKS_DIFFER_S < age_s < settle_s


def _differs(entry: FileEntry, known: tuple[int, int, str]) -> bool:
    size, mtime_ns, sha256 = known
    if entry.size != size:
        return True
    try:
        return entry.mtime_ns != mtime_ns and sha256_of(entry.path) != sha256
    except OSError:  # whether it can be read again does not matter: its tokens are here
        return False


def stayed(source: SourceConfig, entries: tuple[FileEntry, ...], *, base: Path) -> bool:
    """Whether files that were read meanwhile are what they were when they were listed."""
    try:
        there = set(list_files(source, base))
    except DataError:
        return False
    return there.issuperset(entries)
