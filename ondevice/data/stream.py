"""The tokens of one source and split as one long sequence over many chunk files, few of them open at a time."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.data.chunks import chunk_dtype, map_chunk

__all__ = ["TokenStream"]

_OPEN_MAPS = 32  # each holds a file descriptor, of which Android gives an app few


class TokenStream:
    """Concatenated chunks. A chunk's hash is verified when this process first reads from it.

    >>> stream.read(len(stream) - 2, 2)
    array([ 13, 256], dtype=uint16)
    """

    def __init__(self, chunks: Sequence[tuple[Path, int]], *, vocab_size: int) -> None:
        self._paths = [path for path, _ in chunks]
        self._ends = list(accumulate(tokens for _, tokens in chunks))
        self._maps: OrderedDict[int, npt.NDArray[Any]] = OrderedDict()
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
        found = self._maps.get(index)
        if found is not None:
            self._maps.move_to_end(index)
            return found
        mapped = map_chunk(self._paths[index], verify=not self._verified[index])
        self._verified[index] = 1
        self._maps[index] = mapped
        if len(self._maps) > _OPEN_MAPS:
            self._maps.popitem(last=False)
        return mapped
