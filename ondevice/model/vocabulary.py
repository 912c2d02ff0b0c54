"""A trimmed vocabulary: the tokens whose rows a model's tables have while it trains, all others being left out.

Outside a model tokens are called by their ids in the whole vocabulary, inside by their rows. The softmax is over what
is kept: it is that of the whole model with minus infinity for the logits of all other tokens. Knows no tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ondevice.errors import DataError

__all__ = ["TABLES", "Vocabulary"]

TABLES = ("embed.weight", "head.weight")  # the tensors of a decoder that have a row a token


class Vocabulary:
    """``kept``: ids in ascending order, of a whole vocabulary of ``size`` tokens.

    >>> Vocabulary([0, 5, 7], 9).rows(np.array([[7, 0], [5, -100]]))
    array([[   2,    0],
           [   1, -100]])
    """

    def __init__(self, kept: Sequence[int] | npt.NDArray[np.int64], size: int) -> None:
        self.kept = np.asarray(kept, dtype=np.int64)
        self.size = size
        self._rows = np.full(size, -1, dtype=np.int64)
        self._rows[self.kept] = np.arange(len(self.kept))

    def has(self, ids: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which of these ids are kept."""
        return self._rows[np.asarray(ids, dtype=np.int64)] >= 0

    def rows(self, ids: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Rows of ids; what is negative, such as a masked label, stays. Raises DataError for a token without a row."""
        rows = np.where(ids < 0, ids, self._rows[np.maximum(ids, 0)])
        if (lost := (rows < 0) & (ids >= 0)).any():
            raise DataError(
                f"Token {int(ids[lost][0])} has no row in the trimmed vocabulary of {len(self.kept):,} tokens that "
                "this run was planned with; start a new run, or fork it with --set model.vocabulary=full."
            )
        return rows

    def widened(self, logits: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Logits ``[..., kept]`` as ``[..., size]``: minus infinity for tokens that are not kept."""
        whole = np.full((*logits.shape[:-1], self.size), -np.inf, dtype=logits.dtype)
        whole[..., self.kept] = logits
        return whole

    def part(self, first: int, part: Tensor) -> tuple[int, Tensor]:
        """Of a whole table's rows from ``first`` on those that are kept, and the row that the first of them takes."""
        start, end = np.searchsorted(self.kept, [first, first + len(part)])
        return int(start), part[self.kept[start:end] - first]
