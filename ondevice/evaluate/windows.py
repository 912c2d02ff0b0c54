"""Short stretches of validation text, for comparing two forms of one model token by token."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ondevice.data.dataset import Dataset

__all__ = ["validation_windows"]


def validation_windows(dataset: Dataset, *, length: int, tokens: int) -> list[np.ndarray]:
    """Windows of ``length`` + 1 ids (int64; a short text gives a shorter one), about ``tokens`` in all, evenly from
    every source's validation text and over its whole length. Empty where there is no such text."""
    streams = [dataset.stream(entry.name, "val") for entry in dataset.sources]
    streams = [stream for stream in streams if len(stream) >= 2]
    each = max(1, tokens // (length * max(len(streams), 1)))

    def cut() -> Iterator[np.ndarray]:
        for stream in streams:
            whole = max((len(stream) - 1) // length, 1)
            wanted = min(each, whole)
            for index in range(wanted):
                start = index * whole // wanted * length
                yield stream.read(start, min(length + 1, len(stream) - start)).astype(np.int64)

    return list(cut())
