"""One file that carries a run to another machine: every file of it with its hash, in an order anyone can predict.

A pack is a plain tar archive (USTAR, nothing compressed) whose first member, ``pack.json``, is sealed and lists the
path, size and SHA-256 of all the others. The same files give the same bytes, and the list alone says at which offset
each begins: so an interrupted pack, copy or unpack goes on where it was, and a reader needs no tar parser
(`ondevice.run.unpack`). Knows bytes and paths; what they mean is the business of who names them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from ondevice.errors import DataError, ResourceError, RunBusy, UsageError
from ondevice.run.files import fsync_folder, open_regular, sealed_bytes, write_error

__all__ = [
    "BLOCK",
    "INDEX",
    "MOST_INDEX",
    "MOST_MEMBERS",
    "PACK_VERSION",
    "Member",
    "Pack",
    "collision",
    "header",
    "is_member_name",
    "list_members",
    "parse_index",
    "write_pack",
]

PACK_VERSION = 1
INDEX = "pack.json"
BLOCK = 512
MOST_MEMBERS = 100_000
MOST_INDEX = 1 << 25  # bytes
_MOST_VALUES = 4 * MOST_MEMBERS + 10_000  # of its JSON: a crafted index of tiny ones would take a phone's memory
_COPY = 1 << 20
_PREFIX = 155  # bytes of a path that USTAR keeps apart
_NAME = re.compile(r"(run|data)(/[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,99}){1,6}")
_END = bytes(2 * BLOCK)

Progress = Callable[[int, int], None]  # done, in all


@dataclass(frozen=True)
class Member:
    """A file of a pack. ``bytes`` of a file that still grows are those it had when it was listed."""

    name: str
    bytes: int
    sha256: str

    @property
    def padded(self) -> int:
        """Bytes it takes in the archive after its header."""
        return -(-self.bytes // BLOCK) * BLOCK


@dataclass(frozen=True)
class Pack:
    """An index. ``about`` is what the reader should know: the run, its step, the software it was trained with."""

    about: dict[str, Any]
    members: tuple[Member, ...]

    @cached_property
    def index(self) -> bytes:
        """``pack.json``; ends in line breaks so that it fills whole blocks."""
        body = {
            "v": PACK_VERSION,
            "about": self.about,
            "members": [[member.name, member.bytes, member.sha256] for member in self.members],
        }
        return sealed_bytes(body)

    @cached_property
    def offsets(self) -> list[int]:
        """Where the header of each member begins, and at last where the archive's end marker does."""
        found = [BLOCK + -(-len(self.index) // BLOCK) * BLOCK]
        for member in self.members:
            found.append(found[-1] + BLOCK + member.padded)
        return found

    @property
    def total_bytes(self) -> int:
        return self.offsets[-1] + len(_END)


def is_member_name(name: str) -> bool:
    """Whether a path may be in a pack: below ``run/`` or ``data/``, plain names, no way out."""
    return _NAME.fullmatch(name) is not None and ".." not in name.split("/") and len(_split(name)[0]) <= _PREFIX


def collision(names: Sequence[str]) -> str | None:
    """A name that is there twice, or is also the folder of another; None where all can lie side by side."""
    counts = Counter(names)
    folders = {name[: match.start()] for name in counts for match in re.finditer("/", name)}
    return next((name for name, count in counts.items() if count > 1 or name in folders), None)


def list_members(
    files: Sequence[tuple[str, Path, int | None]], progress: Progress = lambda done, total: None
) -> list[Member]:
    """Hashes files given as (name in the pack, path, bytes to take; None for all); ``progress`` counts them.

    Raises DataError, UsageError.
    """
    members: list[Member] = []
    for name, path, size in files:
        progress(len(members), len(files))
        if not is_member_name(name):
            raise UsageError(f"{path}: a file of this name cannot be packed; rename it or move it out of the run.")
        try:
            with open_regular(path) as file:
                wanted = os.fstat(file.fileno()).st_size if size is None else size
                members.append(Member(name, wanted, _hash(file, wanted, path)))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if (twice := collision([member.name for member in members])) is not None:
        raise UsageError(f"{twice}: two files of this name cannot be packed; rename one or move it out of the run.")
    if len(members) > MOST_MEMBERS:
        raise UsageError(
            f"{len(members):,} files cannot be packed, at most {MOST_MEMBERS:,}; try --latest or --no-data."
        )
    return members


def _hash(file: BinaryIO, size: int, path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(file, size, path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(file: BinaryIO, size: int, path: Path) -> Iterator[bytes]:
    left = size
    while left:
        block = file.read(min(_COPY, left))
        if not block:
            raise DataError(f"{path}: became shorter while it was packed; repeat the command.")
        left -= len(block)
        yield block


def header(name: str, size: int) -> bytes:
    """The USTAR header of a file, the same for everyone: no owner, no time, mode 0600."""
    prefix, base = _split(name)
    fields = b"".join(
        [
            base.encode().ljust(100, b"\0"),
            b"0000600\0" + b"0000000\0" + b"0000000\0",
            b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big"),
            b"00000000000\0",
            b" " * 8,
            b"0".ljust(101, b"\0"),
            b"ustar\x0000".ljust(72, b"\0"),
            b"0000000\0" + b"0000000\0",
            prefix.encode().ljust(155, b"\0"),
        ]
    ).ljust(BLOCK, b"\0")
    return fields[:148] + b"%06o\0 " % sum(fields) + fields[156:]


def _split(name: str) -> tuple[str, str]:
    """A path as USTAR keeps it: at most 155 bytes before a slash, at most 100 after it."""
    if len(name) <= 100:
        return "", name
    cut = name.index("/", len(name) - 101)
    return name[:cut], name[cut + 1 :]


def write_pack(
    pack: Pack,
    files: Sequence[tuple[str, Path, int | None]],
    target: Path,
    progress: Progress = lambda done, total: None,
) -> int:
    """Writes the archive, going on with ``<target>.part`` where an interrupted one of the same content lies.

    ``progress`` counts bytes. Gives the bytes that were there already, which may be all. Raises ResourceError,
    DataError, RunBusy; UsageError if the target is another file.
    """
    if _is_whole(pack, target):
        return pack.total_bytes
    if os.path.lexists(target):
        raise UsageError(f"{target}: exists already; name another file with --out, or delete it.")
    if len(pack.index) > MOST_INDEX:
        raise UsageError(f"{len(pack.members):,} files cannot be packed: their names are too long; try --no-data.")
    part = target.with_name(f"{target.name}.part")
    with _explained(target), open(_open_part(part), "r+b", buffering=0) as out:
        done = _finished_members(pack, out)
        start = pack.offsets[done] if done >= 0 else 0
        out.truncate(start)
        _refuse_full_disk(target, pack.total_bytes - start)
        out.seek(start)
        if done < 0:
            _write(out, header(INDEX, len(pack.index)) + _padded(pack.index))
        for member, (_, path, _size) in list(zip(pack.members, files, strict=True))[max(0, done) :]:
            progress(out.tell(), pack.total_bytes)
            _copy(member, path, out)
        _write(out, _END)
        os.fsync(out.fileno())
        part.rename(target)
    with suppress(OSError):  # not every file system of a card or a network can; what counts is in the file
        fsync_folder(target.parent)
    return start


def _open_part(part: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(part, flags, 0o600)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UsageError(f"{part}: is not a file; delete it or name another with --out.")
    with suppress(OSError):  # a card has no locks: then two at once are the person's care
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise RunBusy(f"{part}: another `ondevice pack` writes this file; wait for it, or use --out.") from error
    return fd


def _is_whole(pack: Pack, target: Path) -> bool:
    try:
        with open_regular(target) as file:
            same = os.fstat(file.fileno()).st_size == pack.total_bytes
            return same and _finished_members(pack, file) == len(pack.members) and file.read() == _END
    except OSError:
        return False


def _finished_members(pack: Pack, part: BinaryIO) -> int:
    """How many whole, unchanged members an interrupted pack left; -1 when it is not a beginning of this pack."""
    begin = header(INDEX, len(pack.index)) + _padded(pack.index)
    if part.read(len(begin)) != begin:
        return -1
    for count, member in enumerate(pack.members):
        if part.read(BLOCK) != header(member.name, member.bytes):
            return count
        digest = hashlib.sha256()
        left = member.bytes
        while left and (block := part.read(min(_COPY, left))):
            digest.update(block)
            left -= len(block)
        rest = part.read(member.padded - member.bytes)
        if left or digest.hexdigest() != member.sha256 or rest != bytes(member.padded - member.bytes):
            return count
    return len(pack.members)


def _copy(member: Member, path: Path, out: BinaryIO) -> None:
    digest = hashlib.sha256()
    _write(out, header(member.name, member.bytes))
    with open_regular(path) as file:
        for block in _blocks(file, member.bytes, path):
            digest.update(block)
            _write(out, block)
    if digest.hexdigest() != member.sha256:
        raise DataError(f"{path}: changed while it was packed; repeat the command.")
    _write(out, bytes(member.padded - member.bytes))


def _write(out: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while len(view):
        view = view[out.write(view) or 0 :]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def _refuse_full_disk(target: Path, need: int) -> None:
    with suppress(OSError):
        free = shutil.disk_usage(target.parent).free
        if free < need:
            raise ResourceError(
                f"{target.parent}: {free / 2**20:,.1f} MB are free and the pack needs {need / 2**20:,.1f} MB; free "
                "some space, or leave parts out with --latest or --no-data."
            )


@contextmanager
def _explained(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_error(target, error) from error


def parse_index(data: bytes) -> Any:
    """The JSON of an index, or None where it is not JSON, or more than an index may hold."""
    if data.count(b",") > _MOST_VALUES:
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
