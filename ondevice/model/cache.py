"""Keys and values of the tokens seen so far, for decoding a token without repeating the ones before it."""

from __future__ import annotations

import torch
from torch import Tensor

from ondevice.run.recipe import ModelShape

__all__ = ["KVCache"]


class KVCache:
    """Room for ``length`` tokens (the model's context where not given) of ``batch`` sequences, reserved once.

    Holds 2 * layers tensors ``[batch, kv_heads, length, head_dim]``. It does not count tokens: whoever calls the
    model says at which position they start, so going back to an earlier position is only a smaller ``start``.
    """

    def __init__(
        self, shape: ModelShape, *, batch: int, length: int | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self.batch = batch
        self.length = shape.context if length is None else length
        size = (batch, shape.kv_heads, self.length, shape.head_dim)
        # Unwritten rows are never read, and untouched pages of an empty tensor take no memory yet.
        self.keys = [torch.empty(size, dtype=dtype) for _ in range(shape.layers)]
        self.values = [torch.empty(size, dtype=dtype) for _ in range(shape.layers)]

    def store(self, layer: int, start: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Writes T tokens at ``start``; gives views of all keys and values up to and with them, ``[B, K, S, D]``."""
        end = start + k_BKTD.shape[2]
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, start:end] = k_BKTD
        values[:, :, start:end] = v_BKTD
        return keys[:, :, :end], values[:, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Leaves only some sequences, in the given order."""
        self.keys = [each.index_select(0, rows) for each in self.keys]
        self.values = [each.index_select(0, rows) for each in self.values]
        self.batch = len(rows)
