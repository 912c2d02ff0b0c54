"""The validation text of a dataset under another tokenizer, so that a model that came with its own can be measured.

Documents are decoded and encoded again, each with its end-of-text token; losses per token are then of other tokens,
and bits per byte is what compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ondevice.data.dataset import Dataset, SourceEntry
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import UsageError

__all__ = ["Retokenised"]

_AT_ONCE = 64  # documents


class _Ids:
    def __init__(self, ids: np.ndarray) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    def read(self, start: int, count: int) -> np.ndarray:
        return self._ids[start : start + count]


class Retokenised:
    """A `ValidationText`. A source's text is encoded when it is first asked for."""

    def __init__(self, dataset: Dataset, tokenizer: Tokenizer) -> None:
        """Raises UsageError for a dataset of examples, whose answers are known by their places among its own ids."""
        if dataset.examples is not None:
            raise UsageError(
                f"{dataset.folder.name}: examples are measured in the ids they were built with, and this model has "
                "another tokenizer; leave the losses out with --no-losses, or build the dataset with its tokenizer."
            )
        self._dataset, self._tokenizer = dataset, tokenizer
        self._known: dict[str, _Ids] = {}

    @property
    def sources(self) -> Sequence[SourceEntry]:
        return self._dataset.sources

    def tokenizer(self) -> Tokenizer:
        return self._tokenizer

    def stream(self, source: str, split: str) -> _Ids:
        """Raises ValueError for another split than ``val``."""
        if split != "val":
            raise ValueError(f"{split}: only validation text is encoded again")
        if source not in self._known:
            texts = list(_documents(self._dataset, source))
            parts = [
                self._tokenizer.encode_documents(texts[first : first + _AT_ONCE])[0].astype(np.int64)
                for first in range(0, len(texts), _AT_ONCE)
            ]
            self._known[source] = _Ids(np.concatenate([*parts, np.zeros(0, np.int64)]))
        return self._known[source]


def _documents(dataset: Dataset, source: str) -> Iterator[str]:
    stream, tokenizer = dataset.stream(source, "val"), dataset.tokenizer()
    ids = stream.read(0, len(stream)).astype(np.int64)
    start = 0
    for end in [*np.flatnonzero(ids == tokenizer.eot_id).tolist(), len(ids)]:
        if end > start:
            yield tokenizer.decode(ids[start:end].tolist())
        start = end + 1
