"""Bytes of a file, a gzip file or a zip member, in blocks; and whether they can be text at all.

A `Leaf` is one thing that holds text. It may be opened more than once, so a reader may look ahead in a second pass
instead of holding a long line in memory.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Protocol

from ondevice.data.sources_types import without_gz
from ondevice.data.sources_walk import FileEntry, Rules, label
from ondevice.errors import DataError

__all__ = [
    "BLOCK",
    "Leaf",
    "Swell",
    "Unreadable",
    "file_leaf",
    "member_blocks",
    "refuse_bomb",
    "sniff",
    "zip_leaves",
]

BLOCK = 1 << 18  # bytes; measured: larger blocks decode slower, they leave the processor's cache
SNIFFED = 1 << 16
BOMB_BYTES = 50_000_000
BOMB_RATIO = 200
_BINARY_SHARE = 0.3
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")  # the first begins as one of UTF-16

Blocks = Generator[bytes, None, None]


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Unreadable(Exception):
    """A file or member that cannot be read. ``reason`` is one for `Problems`; ``detail`` completes "PATH ...".

    ``advice`` says what to do where the file was named directly.
    """

    def __init__(self, reason: str, detail: str, advice: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Leaf:
    """One thing that holds text: a file, or a member of an archive.

    ``origin`` is for people (``a.txt``, ``old.zip!inner/a.txt``), ``shown`` the full path for error messages, ``name``
    decides the type (without ``.gz``), ``size`` is in bytes as stored. ``blocks`` opens it: the generator raises
    Unreadable, and DataError for a truncated gzip file or a compressed bomb.
    """

    origin: str
    shown: str
    name: str
    size: int
    blocks: Callable[[], Blocks]

    def head(self) -> bytes:
        """The first `SNIFFED` bytes."""
        with closing(self.blocks()) as blocks:
            return next(blocks, b"")[:SNIFFED]


def file_leaf(entry: FileEntry) -> Leaf:
    """A file on disk, read through gzip where its name ends in ``.gz``."""
    shown, name = label(str(entry.path)), without_gz(entry.path.name)
    read = _gzip_blocks if name != entry.path.name else _file_blocks
    return Leaf(entry.relative, shown, name, entry.size, partial(read, entry.path, shown))


def _file_blocks(path: Path, shown: str) -> Blocks:
    try:
        # Unbuffered: the blocks are large already.
        with open(path, "rb", buffering=0) as file:
            while block := file.read(BLOCK):
                yield block
    except OSError as error:
        raise _unreadable(error) from error


def _gzip_blocks(path: Path, shown: str) -> Blocks:
    try:
        with open(path, "rb") as file, gzip.GzipFile(fileobj=file) as stream:
            yield from _bounded(stream, shown, path.stat().st_size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{shown}: the gzip file is truncated or damaged ({error}); fetch it again or leave it out."
        ) from error
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> Unreadable:
    return Unreadable(
        "unreadable_file",
        f"cannot be read ({error.strerror or error})",
        "check its permissions, or run termux-setup-storage if it is on /sdcard",
    )


def _bounded(stream: _Stream, shown: str, stored: int, swell: Swell | None = None) -> Blocks:
    """Blocks of a decompressed stream. Raises DataError once it is a bomb: ``stored`` bytes that swell for ever."""
    total = 0
    while block := stream.read(BLOCK):
        total += len(block)
        refuse_bomb(shown, total, stored)
        if swell is not None:
            swell.note(shown, total)
        yield block


def refuse_bomb(shown: str, total: int, stored: int) -> None:
    """Raises DataError where ``stored`` bytes swell to so many that it can be no text."""
    if total > BOMB_BYTES and total > BOMB_RATIO * stored:
        raise DataError(
            f"{shown}: {stored:,} compressed bytes swell to more than {total // 1_000_000} MB, which no real text "
            "does; leave this file out."
        )


class Swell:
    """What the members of an archive of ``stored`` bytes have come to: many that overlap are a bomb together."""

    def __init__(self, shown: str, stored: int) -> None:
        self._shown, self._stored, self._total = shown, stored, 0
        self._longest: dict[str, int] = {}  # a member may be read more than once

    def note(self, member: str, total: int) -> None:
        """``total`` bytes were read of a member. Raises DataError once all are too many."""
        more = total - self._longest.get(member, 0)
        if more > 0:
            self._longest[member] = total
            self._total += more
            refuse_bomb(self._shown, self._total, self._stored)


def zip_leaves(entry: FileEntry, rules: Rules, skip: Callable[[str, str], None]) -> Iterator[Leaf]:
    """The members of a zip file that the rules take, sorted by name; ``skip(reason, origin)`` hears of the others.

    The archive stays open while the generator runs. Raises DataError when it is no zip file, Unreadable when it cannot
    be opened.
    """
    shown = label(str(entry.path))
    try:
        archive = zipfile.ZipFile(entry.path)
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise DataError(
            f"{shown}: not a zip file or a damaged one ({error}); fetch it again or leave it out."
        ) from error
    except OSError as error:
        raise _unreadable(error) from error
    swell = Swell(shown, entry.size)
    with archive:
        members = [m for m in archive.infolist() if not m.is_dir() and rules.takes_member(m.filename)]
        for member in sorted(members, key=lambda m: m.filename):
            origin = f"{entry.relative}!{label(member.filename)}"
            if member.flag_bits & 1:
                skip("unreadable_member", origin)
            else:
                name = PurePosixPath(member.filename).name
                where = f"{shown}!{label(member.filename)}"
                read = partial(member_blocks, archive, member, where, swell)
                yield Leaf(origin, where, without_gz(name), member.file_size, read)


def member_blocks(archive: zipfile.ZipFile, member: zipfile.ZipInfo, shown: str, swell: Swell) -> Blocks:
    """The content of a member. Raises Unreadable, and DataError for a compressed bomb."""
    try:
        with archive.open(member) as stream:
            blocks = _bounded(stream, shown, member.compress_size, swell)
            if without_gz(member.filename) == member.filename:
                yield from blocks
            else:
                with gzip.GzipFile(fileobj=stream) as inner:
                    yield from _bounded(inner, shown, member.compress_size, swell)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # every way to compress has errors of its own, some of modules that may be absent
        detail = f"cannot be unpacked ({error or type(error).__name__})"
        raise Unreadable("unreadable_member", detail, "fetch the archive again, or pack it with deflate") from error


def sniff(head: bytes) -> Unreadable | None:
    """Why these first bytes cannot be text in UTF-8; None when they can."""
    if head.startswith(_UTF32):
        return Unreadable("binary_file", "is UTF-32, not UTF-8", "convert it: iconv -f UTF-32 -t UTF-8 OLD > NEW")
    if head.startswith(_UTF16):
        return Unreadable("utf16_file", "is UTF-16, not UTF-8", "convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW")
    if b"\0" in head or _invalid_share(head) > _BINARY_SHARE:
        return Unreadable("binary_file", "is not text (it holds binary data)", "name a text file")
    return None


def _invalid_share(head: bytes) -> float:
    """Share of bytes that are no valid UTF-8. A character cut off at the end counts as invalid: 3 bytes at most."""
    if not head or head.isascii():
        return 0.0
    valid = len(head.decode("utf-8", "ignore").encode())
    return max(0, len(head) - valid - 3) / len(head)
