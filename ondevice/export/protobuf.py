"""A small encoder of the protobuf wire format: just enough to write ONNX files without the onnx package.

Messages know their size before a byte is written, so a file larger than memory streams to disk in one go: large
payloads stay `Blob`s that are read only while writing. Format: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Protocol

__all__ = ["Blob", "Message", "varint", "write_pieces"]

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_JOIN_BYTES = 1 << 20


class Blob(Protocol):
    """A payload of known size whose bytes are produced only when they are written."""

    @property
    def size(self) -> int: ...

    def blocks(self) -> Iterator[bytes | memoryview]: ...


class Writable(Protocol):
    """What `write_pieces` writes to: any binary file."""

    def write(self, data: bytes | memoryview, /) -> object: ...


def varint(value: int) -> bytes:
    """Base-128 encoding, low groups first. A negative int64 takes ten bytes, as its two's complement.

    Raises ValueError outside -2**63 ... 2**64 - 1.
    """
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError(f"{value} does not fit in 64 bits")
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Message:
    """A message under construction. Fields keep the order of the calls; repeated fields are repeated calls.

    >>> inner = Message().text(1, "batch")
    >>> b"".join(Message().varint(1, 8).message(7, inner).pieces).hex()
    '08083a070a056261746368'
    """

    def __init__(self) -> None:
        self.pieces: list[bytes | Blob] = []
        self.size = 0

    def _add(self, data: bytes) -> Message:
        self.pieces.append(data)
        self.size += len(data)
        return self

    def _tag(self, field: int, wire_type: int) -> bytes:
        return varint(field << 3 | wire_type)

    def varint(self, field: int, value: int) -> Message:
        """int32, int64, uint64, bool and enum fields."""
        return self._add(self._tag(field, _VARINT) + varint(value))

    def varints(self, field: int, values: Iterable[int]) -> Message:
        """A repeated field that its schema does not mark as packed."""
        return self._add(b"".join(self._tag(field, _VARINT) + varint(value) for value in values))

    def packed(self, field: int, values: Iterable[int]) -> Message:
        """A packed repeated field of varints; nothing at all when empty, as protobuf itself does."""
        body = b"".join(varint(value) for value in values)
        return self.data(field, body) if body else self

    def float32(self, field: int, value: float) -> Message:
        """A float field (fixed32)."""
        return self._add(self._tag(field, _FIXED32) + struct.pack("<f", value))

    def float64(self, field: int, value: float) -> Message:
        """A double field (fixed64)."""
        return self._add(self._tag(field, _FIXED64) + struct.pack("<d", value))

    def floats32(self, field: int, values: Iterable[float]) -> Message:
        """A repeated float field that its schema does not mark as packed."""
        for value in values:
            self.float32(field, value)
        return self

    def data(self, field: int, data: bytes) -> Message:
        """A bytes field."""
        return self._add(self._tag(field, _LENGTH) + varint(len(data)) + data)

    def text(self, field: int, text: str) -> Message:
        """A string field, as UTF-8."""
        return self.data(field, text.encode())

    def message(self, field: int, message: Message) -> Message:
        """An embedded message; its blobs stay unread."""
        self._add(self._tag(field, _LENGTH) + varint(message.size))
        self.pieces += message.pieces
        self.size += message.size
        return self

    def blob(self, field: int, blob: Blob) -> Message:
        """A bytes field that is read only while the file is written."""
        self._add(self._tag(field, _LENGTH) + varint(blob.size))
        self.pieces.append(blob)
        self.size += blob.size
        return self


def write_pieces(file: Writable, pieces: Iterable[bytes | Blob]) -> None:
    """Writes pieces in order, small ones joined: a graph has thousands of fields of a few bytes each."""
    pending = bytearray()
    for piece in pieces:
        if not isinstance(piece, bytes):
            file.write(bytes(pending))
            pending.clear()
            for block in piece.blocks():
                file.write(block)
            continue
        pending += piece
        if len(pending) >= _JOIN_BYTES:
            file.write(bytes(pending))
            pending.clear()
    file.write(bytes(pending))
