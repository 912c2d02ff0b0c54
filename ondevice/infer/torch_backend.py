"""The torch backend: one of our decoders with its key-value cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from ondevice.model.cache import KVCache
from ondevice.model.decoder import Decoder

__all__ = ["TorchBackend"]


class TorchBackend:
    """A `Backend` over a decoder that may be in training: its mode is put back after each call.

    >>> backend = TorchBackend(decoder)
    >>> backend.start(1); logits_BV = backend.step(np.array([[5, 9, 2]]))
    """

    name = "torch"

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.context = decoder.shape.context
        vocabulary = decoder.vocabulary
        self.vocab_size = decoder.shape.vocab_size if vocabulary is None else vocabulary.size
        self._cache: KVCache | None = None
        self._length = 0
        self._lead_B: torch.Tensor | None = None

    def start(self, batch: int) -> None:
        self._reserve(batch, self.context)

    def _reserve(self, batch: int, length: int) -> None:
        """A cache for at least ``length`` tokens, empty."""
        if self._cache is None or self._cache.batch != batch or self._cache.length < length:
            self._cache = None  # not two at a time
            stored = self._decoder.head_weight.dtype
            dtype = torch.float32 if stored == torch.bfloat16 else stored  # such weights are widened for each product
            self._cache = KVCache(self._decoder.shape, batch=batch, length=length, dtype=dtype)
        self._length, self._lead_B = 0, None

    def read(self, rows: Sequence[Sequence[int]], *, room: int) -> np.ndarray:
        longest = max(map(len, rows))
        self._reserve(len(rows), min(self.context, longest + room))
        ids_BT = np.zeros((len(rows), longest), np.int64)
        for row, ids in enumerate(rows):
            ids_BT[row, longest - len(ids) :] = ids
        if any(len(ids) != longest for ids in rows):
            self._lead_B = torch.tensor([longest - len(ids) for ids in rows])
        return self.step(ids_BT)

    def keep(self, rows: Sequence[int]) -> None:
        assert self._cache is not None
        chosen = torch.tensor(rows, dtype=torch.int64)
        with torch.inference_mode():
            self._cache.keep(chosen)
        self._lead_B = None if self._lead_B is None else self._lead_B[chosen]

    def step(self, ids_BT: np.ndarray) -> np.ndarray:
        if self._cache is None:
            self.start(len(ids_BT))
        count = ids_BT.shape[1]
        if self._length + count > self.context:
            raise ValueError(f"{self._length} + {count} tokens exceed the context of {self.context}")
        with self._evaluating():
            hidden_BTC = self._decoder(self._rows(ids_BT), cache=self._cache, start=self._length, lead_B=self._lead_B)
            logits_BV = self._logits(hidden_BTC[:, -1])
        self._length += count
        return logits_BV

    def logits(self, ids_BT: np.ndarray) -> np.ndarray:
        with self._evaluating():
            return self._logits(self._decoder(self._rows(ids_BT)))

    def _rows(self, ids_BT: np.ndarray) -> torch.Tensor:
        vocabulary = self._decoder.vocabulary
        return _tensor(ids_BT if vocabulary is None else vocabulary.rows(ids_BT))

    def _logits(self, hidden: torch.Tensor) -> np.ndarray:
        """``[..., V]``; a token that a trimmed vocabulary left out is never likely."""
        logits, vocabulary = _array(self._decoder.logits(hidden)), self._decoder.vocabulary
        return logits if vocabulary is None else vocabulary.widened(logits)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """No dropout and no gradients inside."""
        training = self._decoder.training
        if training:
            self._decoder.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            if training:
                self._decoder.train()


def _tensor(ids_BT: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(ids_BT, dtype=np.int64))


def _array(logits: torch.Tensor) -> np.ndarray:
    array: np.ndarray = logits.float().numpy()
    return array
