"""The table of contents of a zip that holds its members as they are, from untrusted bytes to checked places.

Stricter than any zip program: nothing compressed, nothing hidden before, between or after the parts, no two members
on the same bytes, so that every reader of the file finds the same. Knows nothing of torch or of what members mean.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from ondevice.errors import CheckpointError

__all__ = ["MAX_MEMBERS", "Member", "check_sums", "read_members"]

MAX_MEMBERS = 20_000
_MAX_NAME = 512  # bytes
_BLOCK = 1 << 20
_END, _END64, _LOCATOR = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q"), struct.Struct("<4sLQL")
_ENTRY, _LOCAL = struct.Struct("<4s6H3L5H2L"), struct.Struct("<4s5H3L2H")
_FULL_16, _FULL_32 = 0xFFFF, 0xFFFFFFFF  # "look in the 64-bit field"
_DESCRIPTOR, _UTF8 = 0x0008, 0x0800  # flags: sizes and checksum follow the data; names are UTF-8
_MAX_DESCRIPTOR = 24  # bytes


@dataclass(frozen=True, kw_only=True)
class Member:
    """Where a member's bytes lie in the file. Its local header begins at ``header``; ``described`` says that a
    description follows the bytes."""

    header: int
    start: int
    size: int
    crc: int
    described: bool


class _BadZip(Exception):
    """What is wrong, as the end of a sentence."""


def read_members(file: BinaryIO, *, where: str) -> dict[str, Member]:
    """Every member by name, in the order of the table. Reads the table and the local headers, never a member.

    Raises CheckpointError, one sentence beginning with ``where``.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        start, end, count = _find_table(file, size)
        table = _read_at(file, start, end - start)
        members = _parse_table(file, table, count, start)
        _refuse_overlaps(members, start)
    except _BadZip as problem:
        raise CheckpointError(f"{where}: not a sound torch file: {problem}.") from None
    return members


def check_sums(file: BinaryIO, members: dict[str, Member], *, where: str) -> None:
    """Reads every byte of every member. Raises CheckpointError naming the first that is not what was written.

    torch can be told to write no checksums; all of them are zero then, and nothing is compared.
    """
    if not any(member.crc for member in members.values()):
        return
    for name, member in members.items():
        file.seek(member.start)
        left, crc = member.size, 0
        while left and (block := file.read(min(_BLOCK, left))):
            crc, left = zlib.crc32(block, crc), left - len(block)
        if left or crc != member.crc:
            raise CheckpointError(f"{where}: damaged, part {name!r} is not what was written (its checksum differs).")


def _read_at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    data = file.read(count)
    if len(data) != count:
        raise _BadZip("it is cut short")
    return data


def _find_table(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Where the table of contents begins and ends, and how many members it lists."""
    end_at = size - _END.size
    if end_at < 0:
        raise _BadZip(f"{size} bytes are too few for a zip")
    magic, disk, table_disk, here, count, length, start, comment = _END.unpack(_read_at(file, end_at, _END.size))
    if magic != b"PK\5\6" or comment:
        raise _BadZip("it does not end as a zip does; it was cut short, or something was appended")
    small = (disk, table_disk, here, count, length, start)
    locator_at = end_at - _LOCATOR.size
    if locator_at >= 0 and _read_at(file, locator_at, 4) == b"PK\6\7":
        end_at, (disk, table_disk, here, count, length, start) = _read_end64(file, locator_at)
        full = (_FULL_16,) * 4 + (_FULL_32,) * 2
        wide = (disk, table_disk, here, count, length, start)
        if any(a not in (b, limit) for a, b, limit in zip(small, wide, full, strict=True)):
            raise _BadZip("its two ends contradict each other")
    if (disk, table_disk) != (0, 0) or here != count:
        raise _BadZip("it is split over several disks")
    if count > MAX_MEMBERS:
        raise _BadZip(f"{count} members are above the limit of {MAX_MEMBERS}")
    if start + length != end_at or length > count * (_ENTRY.size + _MAX_NAME + 64):
        raise _BadZip("its table of contents is not where it should be")
    return start, end_at, count


def _read_end64(file: BinaryIO, locator_at: int) -> tuple[int, tuple[int, int, int, int, int, int]]:
    """Where the 64-bit end record begins, and its numbers in the order of the small one."""
    _, disk, end_at, disks = _LOCATOR.unpack(_read_at(file, locator_at, _LOCATOR.size))
    if disk or disks != 1 or end_at != locator_at - _END64.size:
        raise _BadZip("its 64-bit end record is not where it should be")
    magic, length, _, _, disk, table_disk, here, count, table, start = _END64.unpack(
        _read_at(file, end_at, _END64.size)
    )
    if magic != b"PK\6\6" or length != _END64.size - 12:
        raise _BadZip("its 64-bit end record is malformed")
    return end_at, (disk, table_disk, here, count, table, start)


def _parse_table(file: BinaryIO, table: bytes, count: int, table_start: int) -> dict[str, Member]:
    members: dict[str, Member] = {}
    seen: set[str] = set()
    position = 0
    for _ in range(count):
        name, member, position = _parse_entry(file, table, position, table_start)
        folded = name.lower()  # torch looks names up without regard to case
        if folded in seen:
            raise _BadZip(f"the member {name!r} occurs twice")
        seen.add(folded)
        members[name] = member
    if position != len(table):
        raise _BadZip("its table of contents is longer than its members")
    return members


def _parse_entry(file: BinaryIO, table: bytes, position: int, table_start: int) -> tuple[str, Member, int]:
    """One line of the table, compared with its local header, and where the next line begins."""
    if position + _ENTRY.size > len(table):
        raise _BadZip("its table of contents is cut short")
    fields = _ENTRY.unpack_from(table, position)
    magic, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment, disk, _, _, header = fields
    extra_at = position + _ENTRY.size + name_length
    after = extra_at + extra_length + comment
    if magic != b"PK\1\2" or after > len(table):
        raise _BadZip("its table of contents is malformed")
    raw_name = table[extra_at - name_length : extra_at]
    name = _safe_name(raw_name)
    size, packed, header = _wide(name, table[extra_at : extra_at + extra_length], (size, packed, header))
    if method or packed != size:
        raise _BadZip(f"the member {name!r} is compressed, which torch never does; it could unfold to any size")
    if flags & ~(_DESCRIPTOR | _UTF8) or disk:
        raise _BadZip(f"the member {name!r} is encrypted or of a kind that torch never writes")
    if header + _LOCAL.size > table_start:
        raise _BadZip(f"the member {name!r} lies outside the file")
    start = header + _local_length(file, header, raw_name, (flags, crc, size))
    if start + size > table_start:
        raise _BadZip(f"the member {name!r} claims {size} bytes, more than the file has")
    described = bool(flags & _DESCRIPTOR)
    return name, Member(header=header, start=start, size=size, crc=crc, described=described), after


def _safe_name(raw: bytes) -> str:
    """The member's name. Raises _BadZip for names that would leave a folder."""
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise _BadZip("a member's name is not UTF-8") from None
    if len(raw) > _MAX_NAME or not name.isprintable():
        raise _BadZip("a member's name is longer than any of torch's, or has control characters")
    if "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise _BadZip(f"the member {name!r} names a place outside the file")
    return name


def _wide(name: str, extra: bytes, small: tuple[int, int, int]) -> tuple[int, int, int]:
    """Size, packed size and place, from the 64-bit field where the 32-bit ones are full."""
    needed = small.count(_FULL_32)
    position = 0
    while needed and position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == 1 and length >= 8 * needed and position + length <= len(extra):
            wide = iter(struct.unpack_from(f"<{needed}Q", extra, position))
            size, packed, header = [next(wide) if value == _FULL_32 else value for value in small]
            return size, packed, header
        position += length
    if needed:
        raise _BadZip(f"the member {name!r} has no 64-bit sizes where it needs them")
    return small


def _local_length(file: BinaryIO, header: int, raw_name: bytes, told: tuple[int, int, int]) -> int:
    """Length of a member's local header, which must say what the table says: flags, checksum, size."""
    fields = _LOCAL.unpack(_read_at(file, header, _LOCAL.size))
    magic, _, flags, method, _, _, crc, packed, size, name_length, extra_length = fields
    if magic != b"PK\3\4" or _read_at(file, header + _LOCAL.size, name_length) != raw_name:
        raise _BadZip(f"a member is not where its table says ({raw_name.decode()!r})")
    told_flags, told_crc, told_size = told
    unknown = (0,) if flags & _DESCRIPTOR else ()  # written after the bytes
    sizes_agree = {packed, size} <= {told_size, _FULL_32, *unknown}
    if method or flags != told_flags or not sizes_agree or crc not in (told_crc, *unknown):
        raise _BadZip(f"the member {raw_name.decode()!r} is described in two ways")
    return _LOCAL.size + name_length + extra_length


def _refuse_overlaps(members: dict[str, Member], table_start: int) -> None:
    """Members lie one after the other, with nothing between them but the descriptions that follow some."""
    earliest = latest = 0
    for name, member in sorted(members.items(), key=lambda item: item[1].header):
        if member.header < earliest:
            raise _BadZip(f"the member {name!r} lies on the bytes of another")
        if member.header > latest:
            raise _BadZip(f"something is hidden before the member {name!r}")
        earliest = latest = member.start + member.size
        latest += _MAX_DESCRIPTOR * member.described
    if not earliest <= table_start <= latest:
        raise _BadZip("its members do not end where its table of contents begins")
