"""A tokenizer trained straight from declared sources, without building a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ondevice.data.documents import Problems
from ondevice.data.duplicates import document_hash
from ondevice.data.sources import iter_documents, list_files
from ondevice.data.tokenizer import Tokenizer, derive_vocab_size, sample_limit, train_tokenizer
from ondevice.data.tokenizer_base import cut_text
from ondevice.run.schema import DataConfig, TokenizerConfig

__all__ = ["train_on_sources"]

_PIECE_CHARS = 1 << 14


class _Sample:
    """Pieces of documents, taken or left by their hash, about ``limit`` bytes in all; may be read many times."""

    def __init__(self, data: DataConfig, base: Path, *, limit: int) -> None:
        self._data, self._base = data, base
        self.corpus_bytes = sum(entry.size for source in data.sources for entry in list_files(source, base))
        self._share = min(1.0, limit / max(1, self.corpus_bytes))

    def __iter__(self) -> Iterator[str]:
        for source in self._data.sources:
            problems = Problems()
            for document in iter_documents(source, base=self._base, bad_utf8=self._data.bad_utf8, problems=problems):
                for piece in cut_text(document.text, _PIECE_CHARS):
                    if self._share >= 1.0 or document_hash(piece) < self._share * 2.0**64:
                        yield piece


def train_on_sources(data: DataConfig, config: TokenizerConfig, *, base: Path, folder: Path) -> Tokenizer:
    """Trains on at most ``config.sample_mb`` of the sources, spread evenly, and saves into ``folder``.

    Raises DataError (sources, vocabulary too large for the text) and DeviceError (a package is missing).

    >>> train_on_sources(config.data, config.tokenizer, base=Path("."), folder=Path("notes-tokenizer")).vocab_size
    2048
    """
    sample = _Sample(data, base, limit=sample_limit(config))
    return train_tokenizer(config, sample, folder, vocab_size=derive_vocab_size(sample.corpus_bytes))
