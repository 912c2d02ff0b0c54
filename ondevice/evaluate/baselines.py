"""What a model must beat: the unigram model of the training tokens, and general compressors on the same text."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from ondevice.data.dataset import Dataset

__all__ = ["Baseline", "baselines", "unigram_nats"]

_MOST_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Of one source's validation text: unigram nats per token, and bits per byte of ``zlib -9`` and ``lzma``."""

    unigram_nats: float
    zlib_bits_per_byte: float
    lzma_bits_per_byte: float | None  # None where this Python was built without lzma
    bytes: int


def unigram_nats(train_counts: np.ndarray, tokens: np.ndarray) -> float:
    """Mean nats per token of ``tokens`` under add-one smoothed training counts."""
    counts = train_counts.astype(np.float64) + 1.0
    return float(-np.log(counts / counts.sum())[tokens].mean())


def _lzma_bits_per_byte(text: bytes) -> float | None:
    try:
        import lzma
    except ImportError:
        return None
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)


def baselines(dataset: Dataset) -> dict[str, Baseline]:
    """Baselines of every source with validation text, on at most 16 MiB of text."""
    counts = dataset.unigram_counts(None)
    tokenizer = dataset.tokenizer()
    found = {}
    for entry in dataset.sources:
        stream = dataset.stream(entry.name, "val")
        if len(stream) < 2:
            continue
        limit = min(len(stream), max(2, int(_MOST_BYTES * len(stream) / max(1, entry.val_bytes))))
        ids = stream.read(0, limit).astype(np.int64)
        text = tokenizer.decode_bytes([int(token) for token in ids if token != tokenizer.eot_id])
        if text:
            found[entry.name] = Baseline(
                unigram_nats=unigram_nats(counts, ids[1:]),
                zlib_bits_per_byte=8 * len(zlib.compress(text, 9)) / len(text),
                lzma_bits_per_byte=_lzma_bits_per_byte(text),
                bytes=len(text),
            )
    return found
