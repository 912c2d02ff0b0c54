"""Micro-chunks: small immutable files of token ids, each with its own hash.

Layout: a prefix of 64 bytes (magic, version, size of the header, SHA-256 of prefix and header), a JSON header padded
with spaces to a multiple of 64, then the ids, little-endian uint16 or uint32 (uint8: which ids of an example
are learned). Written by the dataset build, read by `stream`. Knows nothing of tokenizers or order.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.errors import DataError
from ondevice.run.files import write_atomic

__all__ = ["CHUNK_VERSION", "ChunkHeader", "chunk_dtype", "map_chunk", "read_header", "verify_chunk", "write_chunk"]

CHUNK_VERSION = 1
_MAGIC = b"ODCHUNK\n"
_PREFIX = struct.Struct("<8sII16x32s")
_ALIGN = 64
_MAX_HEADER = 1 << 16
_DTYPES: dict[str, np.dtype[Any]] = {"uint8": np.dtype("u1"), "uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}


@dataclass(frozen=True, kw_only=True)
class ChunkHeader:
    """What a chunk holds: ``tokens`` ids, from document ``first_document`` to inside ``last_document``.

    ``end_offset`` is how many ids of the last document are in this chunk or earlier ones (its end-of-text included);
    ``last_document_ends`` tells whether those are all. Documents are numbered through their source as it is read.
    """

    source: str
    language: str
    split: str
    index: int
    dtype: str
    tokens: int
    first_document: int
    last_document: int
    end_offset: int
    last_document_ends: bool
    sha256: str = ""


def chunk_dtype(vocab_size: int) -> str:
    """The narrowest type that holds every id."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def write_chunk(path: Path, ids: npt.NDArray[Any], header: ChunkHeader, *, durable: bool = True) -> ChunkHeader:
    """Writes a chunk in one instant and returns its header with the hash. Raises ResourceError on a full disk.

    ``durable=False`` leaves the fsync of file and folder to the caller.
    """
    payload = np.ascontiguousarray(ids, dtype=_DTYPES[header.dtype]).tobytes()
    full = ChunkHeader(**{**asdict(header), "tokens": len(ids), "sha256": hashlib.sha256(payload).hexdigest()})
    write_atomic(path, _head(full) + payload, durable=durable)
    return full


def _head(header: ChunkHeader) -> bytes:
    text = json.dumps(asdict(header), ensure_ascii=False, sort_keys=True).encode()
    text += b" " * (-len(text) % _ALIGN)
    prefix = _PREFIX.pack(_MAGIC, CHUNK_VERSION, len(text), bytes(32))
    return _PREFIX.pack(_MAGIC, CHUNK_VERSION, len(text), hashlib.sha256(prefix + text).digest()) + text


def read_header(path: Path) -> ChunkHeader:
    """The verified header. Raises DataError when the file is absent, damaged, cut short or of a newer version."""
    try:
        with open(path, "rb") as file:
            header, start = _parse(file.read(_PREFIX.size), file.read, path)
            size = file.seek(0, 2)
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from error
    if size != start + header.tokens * _DTYPES[header.dtype].itemsize:
        raise _damaged(path, "has the wrong size")
    return header


def _parse(prefix: bytes, read: Any, path: Path) -> tuple[ChunkHeader, int]:
    """Header and offset of the first id."""
    if len(prefix) < _PREFIX.size or not prefix.startswith(_MAGIC):
        raise _damaged(path, "is not a chunk")
    _, version, length, digest = _PREFIX.unpack(prefix)
    if length > _MAX_HEADER:
        raise _damaged(path, "has a damaged header")
    text = read(length)
    if hashlib.sha256(prefix[:-32] + bytes(32) + text).digest() != digest:
        raise _damaged(path, "has a damaged header")
    if version != CHUNK_VERSION:
        raise DataError(f"{path}: chunk format {version}, this program reads {CHUNK_VERSION}; update ondevice.")
    return ChunkHeader(**json.loads(text)), _PREFIX.size + length


def map_chunk(path: Path, *, verify: bool) -> npt.NDArray[Any]:
    """The ids of a chunk, mapped (read-only, shape [tokens]). ``verify`` compares every byte with the hashes."""
    header = read_header(path)
    width = _DTYPES[header.dtype].itemsize
    if header.tokens == 0:
        return np.empty(0, dtype=_DTYPES[header.dtype])
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = len(mapped) - header.tokens * width
    if verify:
        if hashlib.sha256(memoryview(mapped)[start:]).hexdigest() != header.sha256:
            raise _damaged(path, "is damaged, its hash is wrong")
        if hasattr(mapped, "madvise"):  # every page was read, few will be again: they need not count as this process's
            mapped.madvise(mmap.MADV_DONTNEED)
    return np.frombuffer(mapped, dtype=_DTYPES[header.dtype], offset=start)


def verify_chunk(path: Path) -> ChunkHeader:
    """Compares every byte with the hashes. Raises DataError naming the chunk."""
    map_chunk(path, verify=True)
    return read_header(path)


def _damaged(path: Path, what: str) -> DataError:
    return DataError(f"{path}: this chunk {what}; `ondevice data build` makes it again.")
