"""The character tokenizer: one id a symbol of the training text, in code-point order. Needs no package."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.data.tokenizer_base import REPLACEMENT, TableTokenizer, content_hash
from ondevice.errors import DataError

__all__ = ["CharTokenizer", "train_char"]

_FILE = "symbols.json"


class CharTokenizer(TableTokenizer):
    """Symbols first, then the end-of-text id, then the id of every unknown symbol, which decodes to U+FFFD."""

    kind = "char"

    def __init__(self, symbols: Sequence[str]) -> None:
        super().__init__([*(symbol.encode() for symbol in symbols), b"", REPLACEMENT])
        self.symbols = tuple(symbols)
        self.eot_id = len(symbols)
        self.unk_id = len(symbols) + 1
        self.sha256 = content_hash({"kind": self.kind, "symbols": self.symbols})
        points = np.array([ord(symbol) for symbol in symbols], dtype=np.int64)
        self._ids = np.full(int(points.max(initial=0)) + 2, self.unk_id, dtype=np.int32)
        self._ids[points] = np.arange(len(symbols))

    def encode(self, text: str) -> list[int]:
        result: list[int] = self._array(text).tolist()
        return result

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        return [self._array(text) for text in texts]

    def _array(self, text: str) -> npt.NDArray[np.int32]:
        points = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype="<u4")
        # The last entry of the table is unknown, and stands for every higher code point.
        return self._ids[np.minimum(points, len(self._ids) - 1)]

    def count_unknown(self, text: str) -> int:
        """How many characters of a text are not in the vocabulary."""
        return int((self._array(text) == self.unk_id).sum())

    def files(self) -> dict[str, bytes]:
        return {_FILE: json.dumps(self.symbols).encode()}

    @classmethod
    def from_file(cls, data: bytes, where: Path) -> CharTokenizer:
        """Reads the list of symbols. Raises DataError when it is not one."""
        try:
            symbols = json.loads(data)
            return cls([symbol for symbol in symbols if ord(symbol) >= 0])
        except (TypeError, ValueError) as error:
            raise DataError(f"{where / _FILE}: not a list of symbols; train the tokenizer again.") from error


def train_char(texts: Iterable[str], *, vocab_size: int | None, min_frequency: int) -> CharTokenizer:
    """The symbols that occur at least ``min_frequency`` times; with ``vocab_size`` the most frequent of them.

    ``vocab_size`` counts the two special ids. Raises DataError when the text has fewer symbols.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    known = sorted((s for s, n in counts.items() if n >= min_frequency), key=lambda s: (-counts[s], s))
    if not known:
        raise DataError("There is no text to take symbols from; add text to the sources.")
    if vocab_size is not None and vocab_size - 2 > len(known):
        raise DataError(
            f"tokenizer.vocab_size = {vocab_size} is more than this text supports: with min_frequency = "
            f"{min_frequency} it has {len(known)} symbols, so set it to at most {len(known) + 2}."
        )
    return CharTokenizer(sorted(known[: None if vocab_size is None else max(1, vocab_size - 2)]))
