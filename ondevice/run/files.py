"""Durable file writes: every file of a run reaches the disk through these few functions.

A reader sees the old content or the new, never a mixture: write beside, fsync, rename, fsync the folder. Standard
library only; knows nothing of what the bytes mean. Uses no hard links, which Android forbids.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import Any

from ondevice.errors import DataError, ResourceError

__all__ = [
    "HashedFile",
    "fsync_folder",
    "read_json",
    "sha256_of",
    "write_all",
    "write_atomic",
    "write_json",
]

_BLOCK = 1 << 20


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Writes every byte, through short writes. Raises OSError as the system does."""
    view = memoryview(data).cast("B") if len(data) else memoryview(b"")
    while len(view):
        view = view[os.write(fd, view) :]


def fsync_folder(path: Path) -> None:
    """Makes renames and deletions inside a folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class HashedFile:
    """A new file that is hashed while it is written; `close` makes it durable. Usable as a binary file for writing."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        write_all(self._fd, data)
        self._hash.update(data)
        count = memoryview(data).nbytes
        self.size += count
        return count

    def close(self, *, durable: bool = True) -> None:
        try:
            if durable:
                os.fsync(self._fd)
        finally:
            os.close(self._fd)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replaces ``path`` in one instant. ``durable=False`` skips fsync: after a power cut the old content may return.

    Raises ResourceError when the disk is full; the old file is untouched and nothing is left beside it.
    """
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write_all(fd, data)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"{path.parent}: the disk is full; free some space and repeat the command.") from error
        raise
    if durable:
        fsync_folder(path.parent)


def write_json(path: Path, value: Any, *, durable: bool = True, indent: int | None = 1) -> None:
    """`write_atomic` of a value as JSON; NaN and infinity are refused with ValueError."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, indent=indent)
    write_atomic(path, text.encode() + b"\n", durable=durable)


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises DataError naming the file when it is missing or malformed."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid JSON ({error}).") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, read in blocks."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
