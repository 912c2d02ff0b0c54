"""A backend that remembers what its cache holds: a prompt that goes on from there is read from there.

The next turn of a chat begins with all turns before it, so it costs only its own tokens. Logits are those of a fresh
reading but for the last bits, since the same sums are made in other pieces.
"""

from __future__ import annotations

import numpy as np

from ondevice.infer.backend import Backend

__all__ = ["PrefixBackend"]


class PrefixBackend:
    """A `Backend` for one sequence at a time, over another.

    >>> backend = PrefixBackend(OnnxBackend(folder))
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.name, self.context, self.vocab_size = backend.name, backend.context, backend.vocab_size
        self._held: list[int] = []
        self._fresh = False
        self.reused = 0
        """Tokens of the last prompt that were not read again."""

    def start(self, batch: int) -> None:
        if batch != 1:
            raise ValueError(f"a batch of {batch}; this backend holds one sequence")
        self._fresh = True

    def step(self, ids_BT: np.ndarray) -> np.ndarray:
        ids = ids_BT[0].tolist()
        if self._fresh:
            ids = self._left_to_read(ids)
        if len(self._held) + len(ids) > self.context:
            raise ValueError(f"{len(self._held)} + {len(ids)} tokens exceed the context of {self.context}")
        held, self._held = self._held, []  # whatever ends a step half-way leaves nothing to go on from
        logits_BV = self._backend.step(np.array([ids], dtype=np.int64))
        self._held = held + ids
        return logits_BV

    def _left_to_read(self, ids: list[int]) -> list[int]:
        self._fresh = False
        held = len(self._held)
        if 0 < held < len(ids) and ids[:held] == self._held:
            self.reused = held
            return ids[held:]
        self.reused, self._held = 0, []
        self._backend.start(1)
        return ids

    def logits(self, ids_BT: np.ndarray) -> np.ndarray:
        return self._backend.logits(ids_BT)
