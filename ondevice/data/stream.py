"""The tokens of one source and split as one long sequence over many chunk files, few of them open at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.data.chunks import chunk_dtype, map_chunk, read_header
from ondevice.errors import DataError

__all__ = ["OpenMaps", "TokenStream"]

_OPEN_MAPS = 32  # each holds a file descriptor, of which Android gives an app few, and half a megabyte of RSS


class OpenMaps:
    """The mapped chunks of all streams that share it; the one that was not used for longest is given up first."""

    def __init__(self, limit: int = _OPEN_MAPS) -> None:
        self._limit = limit
        self._maps: OrderedDict[Path, npt.NDArray[Any]] = OrderedDict()

    def get(self, path: Path, open_map: Callable[[], npt.NDArray[Any]]) -> npt.NDArray[Any]:
        """The map of a chunk, opened where it is not open. Raises what ``open_map`` raises."""
        found = self._maps.get(path)
        if found is not None:
            self._maps.move_to_end(path)
            return found
        while len(self._maps) >= self._limit:
            self._maps.popitem(last=False)
        mapped = self._maps[path] = open_map()
        return mapped


class TokenStream:
    """Concatenated chunks. A chunk's hash is verified when this process first reads from it.

    ``maps`` bounds the open chunks of several streams together; without it, a stream has its own bound.

    >>> stream.read(len(stream) - 2, 2)
    array([ 13, 256], dtype=uint16)
    """

    def __init__(
        self, chunks: Sequence[tuple[Path, int, str]], *, vocab_size: int, maps: OpenMaps | None = None
    ) -> None:
        self._paths = [path for path, _, _ in chunks]
        self._ends = list(accumulate(tokens for _, tokens, _ in chunks))
        self._hashes = [sha256 for _, _, sha256 in chunks]
        self._maps = maps or OpenMaps()
        self._verified = bytearray(len(chunks))
        self.dtype = np.dtype(chunk_dtype(vocab_size))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, start: int, count: int) -> npt.NDArray[Any]:
        """Tokens ``start ... start + count - 1`` (read-only where they lie in one chunk).

        Raises IndexError outside the stream, DataError for a damaged chunk.
        """
        if start < 0 or count < 0 or start + count > len(self):
            raise IndexError(f"tokens {start} to {start + count} of a stream of {len(self)}")
        index = bisect_right(self._ends, start)
        if index < len(self._ends) and start + count <= self._ends[index]:
            begin = start - (self._ends[index - 1] if index else 0)
            return self._chunk(index)[begin : begin + count]
        return self._read_across(index, start, count)

    def blocks(self) -> Iterator[npt.NDArray[Any]]:
        """The whole stream, one chunk at a time."""
        for index in range(len(self._paths)):
            yield self._chunk(index)

    def _read_across(self, index: int, start: int, count: int) -> npt.NDArray[Any]:
        out = np.empty(count, dtype=self.dtype)
        filled = 0
        while filled < count:
            begin = start + filled - (self._ends[index - 1] if index else 0)
            part = self._chunk(index)[begin : begin + count - filled]
            out[filled : filled + len(part)] = part
            filled, index = filled + len(part), index + 1
        return out

    def _chunk(self, index: int) -> npt.NDArray[Any]:
        return self._maps.get(self._paths[index], lambda: self._open(index))

    def _open(self, index: int) -> npt.NDArray[Any]:
        path = self._paths[index]
        if not self._verified[index] and read_header(path).sha256 != self._hashes[index]:
            raise DataError(f"{path}: this chunk is not the one of this dataset; `ondevice data build` makes it again.")
        mapped = map_chunk(path, verify=not self._verified[index])
        self._verified[index] = 1
        return mapped
