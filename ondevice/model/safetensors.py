"""Our own reader and writer of safetensors files, because the package does not install on Termux.

A file is an 8-byte little-endian header length, a JSON header, and the tensors' bytes without gaps. What this
reader accepts the package accepts; it is stricter about duplicates and alignment. Checks of the content (hashes)
are not its business.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ondevice.errors import CheckpointError, nearest
from ondevice.model.safetensors_header import MAX_HEADER, Entry, parse_header
from ondevice.model.untrusted import opened, short

__all__ = ["SafeFile", "open_file", "write"]


_TORCH = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_CODES = {dtype: code for code, dtype in _TORCH.items()}


class _Sink(Protocol):
    def write(self, data: memoryview, /) -> Any: ...


def write(
    target: Path | _Sink, tensors: Mapping[str, np.ndarray | Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes ``tensors`` to a path or an open binary file such as `ondevice.run.files.HashedFile`.

    Same tensors in the same order, same bytes: wider dtypes first (which keeps every tensor aligned), else the order
    given. Nothing is copied but non-contiguous tensors, one at a time. A path is overwritten and not made durable.
    Raises ValueError for a dtype the format lacks and TypeError for metadata that is not text.
    """
    parts = {name: _as_tensor(name, tensor) for name, tensor in tensors.items()}
    parts = dict(sorted(parts.items(), key=lambda item: -item[1].element_size()))
    if isinstance(target, Path):
        with open(target, "wb") as file:
            _write(file, parts, metadata or {})
    else:
        _write(target, parts, metadata or {})


def _write(target: _Sink, parts: dict[str, Tensor], metadata: Mapping[str, str]) -> None:
    header = _header(parts, metadata)
    target.write(memoryview(struct.pack("<Q", len(header)) + header))
    for tensor in parts.values():
        if tensor.numel():
            target.write(_bytes_of(tensor.contiguous()))


def _as_tensor(name: str, value: np.ndarray | Tensor) -> Tensor:
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "fiub" or value.dtype.itemsize > 8:
            raise ValueError(f"safetensors cannot hold tensor {name!r} of dtype {value.dtype}")
        shape = value.shape
        value = np.require(value, dtype=value.dtype.newbyteorder("="), requirements=["C", "W"])
        value = torch.from_numpy(value.reshape(shape))  # 0-d arrays came back from numpy with a dimension
    if value.dtype not in _CODES:
        raise ValueError(f"safetensors cannot hold tensor {name!r} of dtype {value.dtype}")
    return value.detach()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous tensor that is not empty."""
    return tensor.view(-1).view(torch.uint8).numpy().data


def _header(parts: dict[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The JSON header, spaces added so that the tensors begin at a multiple of 8."""
    if not all(isinstance(text, str) for pair in metadata.items() for text in pair):
        raise TypeError("safetensors metadata is text to text")
    if "__metadata__" in parts:
        raise ValueError("no tensor of a safetensors file may be called __metadata__")
    table: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, tensor in parts.items():
        end = offset + tensor.numel() * tensor.element_size()
        table[name] = {"dtype": _CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    if len(header) > MAX_HEADER:
        raise ValueError(f"a safetensors header of {len(header)} bytes is above the limit of {MAX_HEADER}")
    return header + b" " * (-len(header) % 8)


def open_file(path: Path) -> SafeFile:
    """Maps a regular file and checks its header. Raises CheckpointError, one sentence naming the file.

    ::

        with open_file(folder / "model.safetensors") as file:
            for name in file.names:
                file.copy_into(name, state[name])
    """
    return SafeFile(path)


class SafeFile:
    """An open safetensors file. ``names`` are in the order of their bytes; ``metadata`` is the file's own; ``mapped``
    is the map that its tensors lie in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with opened(path) as file:
            self._file = open(os.dup(file.fileno()), "rb", buffering=0)  # noqa: SIM115 (closed by `close`)
        try:
            self._entries, self.metadata, self._data_start, size = self._read_header()
            # A private map: the views are writable, so torch does not warn, yet nothing reaches the file.
            self.mapped = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_COPY)
            self._map: memoryview | None = memoryview(self.mapped)
        except OSError as error:
            self._file.close()
            raise CheckpointError(f"{path}: cannot be mapped ({error.strerror}).") from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> SafeFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file. Tensors already given stay valid: the map lives until the last of them is gone."""
        self._map = None
        self._file.close()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entry(name).shape

    def dtype(self, name: str) -> torch.dtype:
        return _TORCH[self._entry(name).dtype]

    def tensor(self, name: str) -> Tensor:
        """A view of the mapped file, read from disk where it is touched. Writing to it does not change the file."""
        entry = self._entry(name)
        if self._map is None:
            raise ValueError(f"{self.path} is closed")
        if entry.start == entry.end:
            return torch.empty(entry.shape, dtype=self.dtype(name))
        data = self._map[self._data_start + entry.start : self._data_start + entry.end]
        return torch.frombuffer(data, dtype=self.dtype(name)).reshape(entry.shape)

    def copy_into(self, name: str, tensor: Tensor) -> None:
        """Fills ``tensor``, converting where its dtype is another. Raises CheckpointError for another shape.

        Contiguous tensors of the file's dtype are read straight from the file, so that loading a model does not
        also leave the map in memory.
        """
        entry = self._entry(name)
        if tuple(tensor.shape) != entry.shape:
            raise CheckpointError(
                f"{self.path}: tensor {name!r} has shape {list(entry.shape)} where {list(tensor.shape)} is wanted."
            )
        target = tensor.detach()
        if target.dtype == self.dtype(name) and target.is_contiguous() and target.numel():
            self._read_into(entry, _bytes_of(target))
        else:
            target.copy_(self.tensor(name))

    def _read_into(self, entry: Entry, target: memoryview) -> None:
        self._file.seek(self._data_start + entry.start)
        while len(target):
            count = self._file.readinto(target)
            if not count:
                raise CheckpointError(f"{self.path}: the file became shorter while it was read.")
            target = target[count:]

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise CheckpointError(f"{self.path}: no tensor {short(name)}{nearest(name, self._entries)}.")
        return self._entries[name]

    def _read_header(self) -> tuple[dict[str, Entry], dict[str, str], int, int]:
        """Entries, metadata, where the data starts, and the file's size."""
        size = self._file.seek(0, 2)
        self._file.seek(0)
        start = self._file.read(8)
        if len(start) < 8:
            raise CheckpointError(f"{self.path}: {size} bytes are too few for a safetensors file.")
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER or length > size - 8:
            raise CheckpointError(
                f"{self.path}: a header of {length} bytes is beyond the file ({size} bytes) or the limit; "
                "not a safetensors file, or cut short."
            )
        entries, metadata = parse_header(self._file.read(length), size - 8 - length, 8 + length, where=str(self.path))
        return entries, metadata, 8 + length, size
