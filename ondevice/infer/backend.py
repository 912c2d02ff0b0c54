"""What generation needs of a model, whatever computes it."""

from __future__ import annotations

from typing import Protocol

import numpy as np

__all__ = ["Backend"]


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
