"""Opens a pack that may come from anywhere: nothing in it is believed before its hash was checked.

Files are written into a staging folder for this user alone, each to a path made from a checked name; a file that is
there already with the right hash is not written again, so that an interrupted unpack goes on. Reads no tar: the sealed
index says where each file must be, and the bytes in between must be exactly those that `ondevice.run.pack` writes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ondevice.errors import CheckpointError, DataError, ResourceError
from ondevice.run.files import fsync_folder, make_folder, open_regular, sealed_bytes, sha256_of_open, write_error
from ondevice.run.pack import (
    BLOCK,
    INDEX,
    MOST_INDEX,
    MOST_MEMBERS,
    PACK_VERSION,
    Member,
    Pack,
    collision,
    header,
    is_member_name,
    parse_index,
)

__all__ = ["read_index", "stage"]

_MOST_BYTES = 1 << 50
_COPY = 1 << 20
_OR_NONE = type(None)
_ABOUT = {  # what it tells a person, by type
    "run": (str,),
    "id": (str,),
    "recipe_sha256": (str,),
    "step": (int, _OR_NONE),
    "steps": (int,),
    "dataset": (str, _OR_NONE),
    "exactness": (dict,),
    "environment": (dict,),
}


def read_index(path: Path) -> Pack:
    """The checked index of a pack.

    Raises DataError (not a pack, damaged, not wholly copied), CheckpointError (of a newer format).
    """
    try:
        with open_regular(path) as file:
            pack = _parse(path, file)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    if size < pack.total_bytes:
        raise DataError(
            f"{path}: only {size:,} of {pack.total_bytes:,} bytes are here; let the copy go on "
            "(`rsync --append-verify`, `curl -C -`) and repeat this."
        )
    if size > pack.total_bytes:
        raise DataError(f"{path}: {size - pack.total_bytes:,} bytes longer than its index says; copy it again.")
    return pack


def _parse(path: Path, file: BinaryIO) -> Pack:
    head = file.read(BLOCK)
    foreign = DataError(f"{path}: not a run packed by `ondevice pack`.")
    match = re.fullmatch(rb"([0-7]{11})\0", head[124:136])
    if not head.startswith(INDEX.encode() + b"\0") or match is None:
        raise foreign
    size = int(match[1], 8)
    if head != header(INDEX, size) or size > MOST_INDEX:
        raise foreign
    data = file.read(size)
    if len(data) < size:
        raise DataError(f"{path}: ends within its index; copy it again.")
    raw = parse_index(data)
    version = raw.get("v") if isinstance(raw, dict) else None
    if type(version) is int and version > PACK_VERSION:
        raise CheckpointError(f"{path}: pack format {version}, this program reads {PACK_VERSION}; update ondevice.")
    return _checked(path, raw, data)


def _checked(path: Path, raw: Any, data: bytes) -> Pack:
    damaged = DataError(f"{path}: its index is damaged; copy it again.")
    try:
        body = {key: value for key, value in raw.items() if key != "sha256"}
        if data != sealed_bytes(body) or not _tells(raw["about"]):
            raise damaged
        members = tuple(Member(*entry) for entry in raw["members"])
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged from error
    for member in members:
        if not isinstance(member.name, str) or not is_member_name(member.name):
            raise DataError(
                f"{path}: names a file that no run has ({str(member.name)[:80]!r}); do not trust this pack."
            )
        if type(member.bytes) is not int or not 0 <= member.bytes <= _MOST_BYTES:
            raise damaged
        if not re.fullmatch(r"[0-9a-f]{64}", str(member.sha256)):
            raise damaged
    if len(members) > MOST_MEMBERS or collision([member.name for member in members]) is not None:
        raise damaged
    return Pack(raw["about"], members)


def _tells(about: Any) -> bool:
    return isinstance(about, dict) and all(isinstance(about[key], _ABOUT[key]) for key in about.keys() & _ABOUT)


def stage(path: Path, pack: Pack, folder: Path, progress: Callable[[int, int], None] | None = None) -> int:
    """Writes every file of a pack below ``folder``, durably. Gives the bytes that were there already.

    Raises DataError naming the first file whose bytes are not what the index says, ResourceError on a full disk.
    """
    kept = done = 0
    total = sum(member.bytes for member in pack.members)
    try:
        make_folder(folder)
        with open_regular(path) as file:
            for member, offset in zip(pack.members, pack.offsets, strict=False):
                target = folder / member.name
                if _is_there(target, member):
                    kept += member.bytes
                else:
                    _refuse_full_disk(folder, member.bytes)
                    make_folder(target.parent)
                    _extract(path, file, member, offset, target)
                done += member.bytes
                if progress is not None:
                    progress(done, total)
    except OSError as error:
        raise write_error(folder, error) from error
    _remove_foreign(folder, pack)
    return kept


def _is_there(target: Path, member: Member) -> bool:
    try:
        with open_regular(target) as file:
            return os.fstat(file.fileno()).st_size == member.bytes and sha256_of_open(file) == member.sha256
    except OSError:
        return False


def _extract(path: Path, file: BinaryIO, member: Member, offset: int, target: Path) -> None:
    damaged = DataError(f"{path}: {member.name} is damaged in it; copy the pack again and repeat this.")
    file.seek(offset)
    if file.read(BLOCK) != header(member.name, member.bytes):
        raise damaged
    temporary = target.with_name(f".tmp-{target.name}")
    with suppress(FileNotFoundError):
        temporary.unlink()
    digest, left = hashlib.sha256(), member.bytes
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as out:
            while left and (block := file.read(min(_COPY, left))):
                digest.update(block)
                out.write(block)
                left -= len(block)
            out.flush()
            os.fsync(out.fileno())
        if left or digest.hexdigest() != member.sha256:
            raise damaged
        os.replace(temporary, target)
        fsync_folder(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_foreign(folder: Path, pack: Pack) -> None:
    """Deletes what an interrupted unpack left in the staging folder beside the files of the pack."""
    known = {folder / member.name for member in pack.members}
    for root, folders, names in os.walk(folder, topdown=False):
        for name in names:
            if Path(root, name) not in known:
                os.unlink(Path(root, name))
        for name in folders:
            if os.path.islink(Path(root, name)):
                os.unlink(Path(root, name))
            elif not os.listdir(Path(root, name)):
                os.rmdir(Path(root, name))


def _refuse_full_disk(folder: Path, need: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < need:
        raise ResourceError(
            f"{folder}: {free / 2**20:,.1f} MB are free and the next file needs {need / 2**20:,.1f} MB; free some "
            "space and repeat the command, which goes on where it was."
        )
