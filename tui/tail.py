"""The tail of a run's telemetry: whole lines as they are appended, each exactly once, launch after launch.

Remembers how far it read; a torn last line waits for its rest. Knows bytes and files, not records.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ondevice.run.telemetry import launch_files

__all__ = ["Block", "Tail"]

_BLOCK = 64 * 1024  # a millisecond or so of work, so that whoever reads can stop in time
_LARGE = 1024 * 1024
_LONGEST = 8 * 1024 * 1024  # a line beyond this is damage: no record comes near


@dataclass(frozen=True)
class Block:
    """Whole lines, the first of them number ``number`` of its file; ``data`` is None for a line too long to be read."""

    file: str
    number: int
    data: bytes | None


@dataclass(frozen=True)
class _Seen:
    path: Path
    inode: int
    size: int


@dataclass
class _Place:
    """How far a file was read. ``settled`` is the size at which its end was reached, torn line excluded."""

    inode: int
    offset: int = 0
    lines: int = 0
    settled: int = -1
    skipping: bool = False


class Tail:
    """``tail.look()`` and then ``for line in tail.lines(): ...``, as often as one likes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[_Seen] = []
        self._places: dict[Path, _Place] = {}

    def look(self) -> bool:
        """Sees what files there are. True where they are not a continuation of what was read: begin again.

        Raises OSError where the folder cannot be read.
        """
        self._files = _telemetry_files(self._folder)
        if self._continues():
            return False
        self._places.clear()
        return True

    @property
    def files(self) -> tuple[tuple[str, int, int], ...]:
        """Name, inode and size of each file, as a cheap sign of change."""
        return tuple((seen.path.name, seen.inode, seen.size) for seen in self._files)

    @property
    def share_read(self) -> float:
        """Between 0 and 1: bytes read of those seen; 1 where only a torn line is left."""
        if all(self._is_settled(seen) for seen in self._files):
            return 1.0
        total = sum(seen.size for seen in self._files)
        done = sum(place.offset for place in self._places.values())
        return min(0.999, done / total) if total else 1.0

    def blocks(self) -> Iterator[Block]:
        """Whole lines not given yet. Stop early at will: the next call goes on after the last block given."""
        for seen in self._files:
            if not self._is_settled(seen):
                yield from self._blocks_of(seen, self._places.setdefault(seen.path, _Place(seen.inode)))

    def _continues(self) -> bool:
        """Read files are the first of those seen; only the last one read may have grown."""
        begun = list(self._places.items())
        if len(begun) > len(self._files):
            return False
        for number, (path, place) in enumerate(begun, 1):
            seen = self._files[number - 1]
            if seen.path != path or seen.inode != place.inode or seen.size < place.offset:
                return False
            if number < len(begun) and seen.size != place.settled:
                return False
        return True

    def _is_settled(self, seen: _Seen) -> bool:
        place = self._places.get(seen.path)
        return place is not None and place.settled == seen.size

    def _blocks_of(self, seen: _Seen, place: _Place) -> Iterator[Block]:
        try:
            with open(seen.path, "rb", buffering=0) as file:
                while block := _read(file.fileno(), place.offset, seen.size):
                    if end := block.rfind(b"\n") + 1:
                        yield from _cut(seen.path.name, place, block[:end])
                    elif len(block) >= _LONGEST:
                        place.offset, place.skipping = place.offset + len(block), True
                    else:
                        break  # a torn line waits for its rest
        except FileNotFoundError:
            return  # removed between looking and reading; the next look begins again
        place.settled = seen.size


def _read(fd: int, offset: int, end: int) -> bytes:
    """At least one whole line from ``offset``, if there is one within reason; never beyond what was seen."""
    parts, length = [], 0
    while (left := min(_BLOCK if length < _BLOCK else _LARGE, end - offset - length, _LONGEST - length)) > 0:
        more = os.pread(fd, left, offset + length)
        parts.append(more)
        length += len(more)
        if not more or b"\n" in more:
            break
    return b"".join(parts)


def _cut(name: str, place: _Place, block: bytes) -> Iterator[Block]:
    """A block that ends with a line's end, without the rest of a line that is skipped."""
    if place.skipping:
        length, place.skipping = block.index(b"\n") + 1, False
        place.offset, place.lines = place.offset + length, place.lines + 1
        yield Block(name, place.lines, None)
        block = block[length:]
    if block:
        number = place.lines + 1
        place.offset, place.lines = place.offset + len(block), place.lines + block.count(b"\n")
        yield Block(name, number, block)


def _telemetry_files(folder: Path) -> list[_Seen]:
    found = []
    for path in launch_files(folder):
        with suppress(FileNotFoundError):
            stat = path.stat()
            found.append(_Seen(path, stat.st_ino, stat.st_size))
    if not found and folder.exists():
        os.listdir(folder)  # an empty folder is fine; one that may not be read must not look like it
    return found
