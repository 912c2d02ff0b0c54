"""The header of a safetensors file, from untrusted bytes to checked entries. No torch; used by `safetensors` only."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from ondevice.errors import CheckpointError
from ondevice.model.untrusted import short

__all__ = ["MAX_HEADER", "Entry", "parse_header"]

# Bytes. The package takes 100 MB, which as Python objects would be more than a phone has; no model needs a tenth of it.
MAX_HEADER = 10_000_000
_MAX_DIMENSIONS = 64
_MAX_SIZE = 2**63 - 1
_CODES_BY_SIZE = {
    8: ("F64", "I64", "U64"),
    4: ("F32", "I32", "U32"),
    2: ("F16", "BF16", "I16", "U16"),
    1: ("I8", "U8", "BOOL"),
}
_ITEM_SIZES = {code: size for size, codes in _CODES_BY_SIZE.items() for code in codes}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor: dtype code, shape, and its bytes from ``start`` to ``end`` of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class _BadHeader(Exception):
    """What is wrong, as the end of a sentence."""


def parse_header(
    header: bytes, data_size: int, data_start: int, *, where: str
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Entries in the order of their bytes, and the metadata. ``data_start`` is the data's place in the file.

    Raises CheckpointError, one sentence beginning with ``where``, for anything but a header whose tensors cover
    the data exactly once.
    """
    try:
        table = _decode(header)
        metadata = _metadata(table.pop("__metadata__", {}))
        entries = {name: _entry(name, raw) for name, raw in table.items()}
        ordered = dict(sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)))
        _check_cover(ordered, data_size, data_start)
    except _BadHeader as problem:
        raise CheckpointError(f"{where}: not a sound safetensors file: {problem}.") from None
    return ordered, metadata


def _decode(header: bytes) -> dict[str, Any]:
    if not header.startswith(b"{"):
        raise _BadHeader("the header does not begin with a brace")
    try:
        table = json.loads(
            header.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_number,
            parse_float=_refuse_number,
            parse_int=_whole_number,
        )
        json.dumps(table, ensure_ascii=False).encode("utf-8")  # half a surrogate pair is not text
    except (ValueError, RecursionError) as error:
        raise _BadHeader(f"the header is not UTF-8 JSON ({error})") from None
    if not isinstance(table, dict):
        raise _BadHeader("the header is not a JSON object")
    return table


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise _BadHeader(f"the key {short(_repeated(pairs))} occurs twice")
    return table


def _repeated(pairs: list[tuple[str, Any]]) -> str | None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    return None


def _refuse_number(text: str) -> NoReturn:
    raise _BadHeader(f"the number {text[:30]} is not whole")


def _whole_number(text: str) -> int:
    if text.startswith("-") or len(text) > 19:
        raise _BadHeader(f"the number {text[:30]} is negative or absurdly large")
    return int(text)


def _metadata(raw: object) -> dict[str, str]:
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise _BadHeader("its metadata is not text to text")
    return raw


def _entry(name: str, raw: object) -> Entry:
    if not isinstance(raw, dict) or raw.keys() != {"dtype", "shape", "data_offsets"}:
        raise _BadHeader(f"tensor {short(name)} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _ITEM_SIZES:
        raise _BadHeader(f"tensor {short(name)} has the unknown dtype {str(dtype)[:30]!r}")
    if not _are_sizes(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _BadHeader(f"tensor {short(name)} has an absurd shape")
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _BadHeader(f"tensor {short(name)} has impossible offsets")
    entry = Entry(dtype=dtype, shape=tuple(shape), start=offsets[0], end=offsets[1])
    _check_size(name, entry)
    return entry


def _are_sizes(raw: object) -> bool:
    return isinstance(raw, list) and all(type(value) is int and value <= _MAX_SIZE for value in raw)


def _check_size(name: str, entry: Entry) -> None:
    item = _ITEM_SIZES[entry.dtype]
    # Zeros are left out of the first product: [2**40, 2**40, 0] holds nothing, and still no tensor can have it.
    if item * math.prod(size for size in entry.shape if size) > _MAX_SIZE:
        raise _BadHeader(f"tensor {short(name)} has an absurd shape")
    if item * math.prod(entry.shape) != entry.end - entry.start:
        raise _BadHeader(f"tensor {short(name)} has {entry.end - entry.start} bytes, not what its shape and dtype need")


def _check_cover(ordered: dict[str, Entry], data_size: int, data_start: int) -> None:
    """Every byte of the data belongs to one tensor, and every tensor is aligned in the file."""
    position = 0
    for name, entry in ordered.items():
        if entry.start != position:
            raise _BadHeader(f"tensor {short(name)} overlaps another or leaves a gap")
        if (data_start + entry.start) % _ITEM_SIZES[entry.dtype]:
            raise _BadHeader(f"tensor {short(name)} is not aligned to its dtype")
        position = entry.end
    if position != data_size:
        raise _BadHeader(f"the tensors take {position} bytes and {data_size} follow the header")
