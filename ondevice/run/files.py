"""Durable file writes: every file of a run reaches the disk through these few functions.

A reader sees the old content or the new, never a mixture: write beside, fsync, rename, fsync the folder. Standard
library only; knows nothing of what the bytes mean. Uses no hard links, which Android forbids.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from ondevice.errors import CheckpointError, DataError, OndeviceError, ResourceError

__all__ = [
    "HashedFile",
    "fsync_folder",
    "is_gone",
    "json_bytes",
    "make_folder",
    "open_regular",
    "read_json",
    "read_regular",
    "read_sealed",
    "remove_temporary",
    "sealed_bytes",
    "sha256_of",
    "sha256_of_open",
    "write_all",
    "write_atomic",
    "write_error",
    "write_json",
    "write_sealed",
]

_BLOCK = 1 << 20
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SEALED_LIMIT = 1 << 22


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Writes every byte, through short writes. Raises OSError as the system does."""
    view = memoryview(data)
    if not view.nbytes:
        return
    view = view.cast("B")
    while len(view):
        count = os.write(fd, view)
        if not count:
            raise OSError(errno.EIO, "the system wrote nothing")
        view = view[count:]


def fsync_folder(path: Path) -> None:
    """Makes renames and deletions inside a folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def is_gone(path: Path) -> bool:
    """Whether the system says that nothing is at a path; False where it cannot tell, unlike `os.path.lexists`."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def make_folder(path: Path) -> None:
    """Makes a folder and its missing parents for this user alone, durably. One that exists stays as it is."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
        fsync_folder(folder.parent)


def write_error(path: Path, error: OSError) -> OndeviceError:
    """A failed write in one sentence: ResourceError where there is no room, DataError for any other reason."""
    if error.errno in _FULL:
        return ResourceError(f"{path.parent}: the disk is full; free some space and repeat the command.")
    if error.errno == errno.EFBIG:
        return ResourceError(f"{path}: larger than this system lets a file become (see `ulimit -f`).")
    return DataError(f"{path}: cannot be written ({error.strerror or error}).")


class HashedFile:
    """A new file that is hashed while it is written; `close` makes it durable. Usable as a binary file for writing.

    Raises OSError as the system does.
    """

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

    Raises ResourceError when the disk is full and DataError when it cannot be written for another reason; the old
    file is then untouched and nothing is left beside it.
    """
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        try:
            _write_new(temporary, data, durable=durable)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        if durable:
            fsync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error


def _write_new(path: Path, data: bytes, *, durable: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_all(fd, data)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def remove_temporary(folder: Path, *, older_than_s: float = -math.inf) -> None:
    """Deletes files that killed writers left beside their targets; only where no other writer can be at work."""
    with suppress(OSError), os.scandir(folder) as entries:
        left = [entry for entry in entries if entry.name.startswith(".tmp-") and entry.is_file(follow_symlinks=False)]
        for entry in left:
            with suppress(OSError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime >= older_than_s:
                    os.unlink(entry.path)


def json_bytes(value: Any, *, indent: int | None = None) -> bytes:
    """One JSON value and a newline as UTF-8. NaN and infinity are refused with ValueError."""
    separators = (",", ":") if indent is None else None

    def dump(ascii_only: bool) -> str:
        return json.dumps(value, allow_nan=False, ensure_ascii=ascii_only, indent=indent, separators=separators) + "\n"

    try:
        return dump(False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, such as a file name that is not UTF-8
        return dump(True).encode()


def write_json(path: Path, value: Any, *, durable: bool = True, indent: int | None = 1) -> None:
    """`write_atomic` of a value as JSON; NaN and infinity are refused with ValueError."""
    write_atomic(path, json_bytes(value, indent=indent), durable=durable)


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises DataError naming the file when it is missing, unreadable or malformed."""
    try:
        return _parse(path, path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _parse(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise DataError(f"{path}: not valid JSON (nested too deeply).") from error
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}).") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """A file that others may have put there, opened for reading: never through a symbolic link, never a pipe.

    Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        with open(fd, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(fd)


def read_regular(path: Path, *, limit: int) -> bytes:
    """The bytes of `open_regular`, at most ``limit``. Raises OSError."""
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"longer than {limit} bytes")
    return data


def write_sealed(path: Path, body: dict[str, Any], *, durable: bool = True) -> None:
    """`write_json` with the hash of the content as last key, so that any changed bit is noticed by `read_sealed`."""
    write_atomic(path, sealed_bytes(body), durable=durable)


def sealed_bytes(body: dict[str, Any]) -> bytes:
    """The one form a sealed file has: JSON, then the SHA-256 of that JSON under ``sha256``."""
    if not body or "sha256" in body:
        raise ValueError("a sealed file holds something, and no sha256 of its own")
    data = json.dumps(body, allow_nan=False, indent=1).encode()
    # The key is added to the text: writing a long schedule as JSON twice would take twice as long.
    return data.removesuffix(b"\n}") + f',\n "sha256": "{hashlib.sha256(data).hexdigest()}"\n}}\n'.encode()


def read_sealed(path: Path, *, version: int) -> dict[str, Any]:
    """What `write_sealed` wrote, equal to the byte; its ``v`` must be ``version``.

    Raises CheckpointError for a newer ``v``, DataError for a missing, malformed or changed file.
    """
    try:
        data = read_regular(path, limit=_SEALED_LIMIT)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    raw = _parse(path, data)
    found = raw.get("v") if isinstance(raw, dict) else None
    if type(found) is not int:
        raise DataError(f"{path}: damaged, it has no version.")
    if found > version:
        raise CheckpointError(f"{path}: format {found}, this program reads {version}; update ondevice.")
    body = {key: value for key, value in raw.items() if key != "sha256"}
    if found != version or not _is_sealed(data, body):
        raise DataError(f"{path}: damaged, its content changed since it was written (hash differs).")
    return body


def _is_sealed(data: bytes, body: dict[str, Any]) -> bool:
    try:
        return data == sealed_bytes(body)
    except (ValueError, RecursionError):  # an infinity, which we never write
        return False


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes. Raises OSError as the system does."""
    with open(path, "rb") as file:
        return sha256_of_open(file)


def sha256_of_open(file: BinaryIO) -> str:
    """SHA-256 of the rest of an open file, read in blocks."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()
