"""The examples of a dataset as they lie on disk: ids, which of them are learned, and where each example begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ondevice.data.stream import TokenStream
from ondevice.errors import DataError

__all__ = ["ExampleFacts", "ExampleRows"]


@dataclass(frozen=True, kw_only=True)
class ExampleFacts:
    """``learned``: for each source and split, how many ids are learned; ``asked``: a question, held out if any is."""

    kind: str
    asked: str
    too_long: str
    template_sha256: str
    learned: Mapping[str, Mapping[str, int]]
    contract_sha256: str = ""


class ExampleRows:
    """Examples of one source and split; only their lengths are kept in memory.

    >>> rows.read(0)
    (array([31, 373, 13, 0]), array([False, False, True, True]))
    """

    def __init__(self, tokens: TokenStream, learned: TokenStream, lengths: TokenStream) -> None:
        self._tokens, self._learned = tokens, learned
        self.lengths = np.concatenate([np.empty(0, np.int64), *[block.astype(np.int64) for block in lengths.blocks()]])
        self._ends = np.cumsum(self.lengths)
        if not (len(tokens) == len(learned) == int(self.lengths.sum())):
            raise DataError(
                "The lengths of the examples do not agree with their tokens; `ondevice data build` mends it."
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def learned_counts(self) -> npt.NDArray[np.int64]:
        """How many ids of each example are learned."""
        ends = [0]
        for block in self._learned.blocks():  # a chunk holds whole examples
            ends.append(ends[-1] + len(block))
        sums = np.zeros(len(self.lengths) + 1, np.int64)
        before = 0
        for block, (start, end) in zip(self._learned.blocks(), pairwise(ends), strict=True):
            own = np.flatnonzero((self._ends > start) & (self._ends <= end))
            sums[own + 1] = before + np.cumsum(block, dtype=np.int64)[self._ends[own] - start - 1]
            before = int(sums[own[-1] + 1])
        return np.diff(sums)

    def read(self, index: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Ids of an example and which of them are learned."""
        count = int(self.lengths[index])
        start = int(self._ends[index]) - count
        return (
            self._tokens.read(start, count).astype(np.int64),
            self._learned.read(start, count).astype(np.bool_),
        )
