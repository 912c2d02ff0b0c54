"""What generation needs of a model, whatever computes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

__all__ = ["Backend", "BatchBackend"]


class Backend(Protocol):
    """A decoder with a cache of the tokens it has read. Arrays are numpy: ids int64, logits float32."""

    @property
    def name(self) -> str:
        """``"torch"`` or ``"onnxruntime"``."""
        ...

    @property
    def context(self) -> int:
        """The most tokens the cache can hold."""
        ...

    @property
    def vocab_size(self) -> int: ...

    def start(self, batch: int) -> None:
        """Empties the cache, for ``batch`` sequences of equal length."""
        ...

    def step(self, ids_BT: np.ndarray) -> np.ndarray:
        """Appends tokens and gives the logits after the last one, ``[B, V]``.

        Raises ValueError when the cache would exceed the context; `generate` slides the window before that.
        """
        ...

    def logits(self, ids_BT: np.ndarray) -> np.ndarray:
        """Logits after every token, ``[B, T, V]``; neither reads nor changes the cache."""
        ...


class BatchBackend(Backend, Protocol):
    """A backend that also reads sequences of unlike lengths together; `step` goes on with them."""

    def read(self, rows: Sequence[Sequence[int]], *, room: int) -> np.ndarray:
        """Empties the cache, reads every row and gives the logits after its last token, ``[B, V]``.

        There must be room for ``room`` tokens more after the longest row, up to the context.
        """
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Forgets all rows but these, which are numbered anew in this order."""
        ...
