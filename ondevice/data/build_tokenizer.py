"""The tokenizer of a dataset: imported, or trained once from a sample of the corpus and then kept.

Written and read by the dataset build alone. A trained tokenizer stays as it is when sources change, because a new
one would make every chunk, and every model trained on them, worthless.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.data.build_plan import SourcePlan
from ondevice.data.build_scan import Advance, utf8_length
from ondevice.data.duplicates import document_hash
from ondevice.data.split import mix64
from ondevice.data.tokenizer import (
    Tokenizer,
    choose_kind,
    derive_vocab_size,
    import_tokenizer,
    load_tokenizer,
    sample_limit,
    train_tokenizer,
)
from ondevice.data.tokenizer_base import cut_text
from ondevice.errors import DataError
from ondevice.run.files import fsync_folder, read_json, write_json
from ondevice.run.schema import TokenizerConfig

__all__ = ["TrainingSample", "existing_tokenizer", "new_tokenizer", "pinned_tokenizer", "tokenizer_of_texts"]

PIN = "tokenizer_pin.json"
_PIN_VERSION = 1
_SAMPLE_CHARS = 1 << 14


class TrainingSample:
    """Texts to train a tokenizer on: spread evenly over all plans, about ``limit`` bytes; may be read many times.

    Pieces of documents are taken or left by their hash, so the sample does not depend on what else there is. Only
    training text is taken, but a ``whole`` sample (for an alphabet) takes both sides of the split.
    """

    def __init__(self, plans: list[SourcePlan], *, limit: int, whole: bool, advance: Advance) -> None:
        self._plans = plans
        self._whole = whole
        self._advance = advance
        self.corpus_bytes = sum(plan.scan.bytes for plan in plans)
        self._bound = min(1.0, limit / max(1, self.corpus_bytes))

    def __iter__(self) -> Iterator[str]:
        for plan in self._plans:
            for piece in plan.pieces():
                self._advance(utf8_length(piece.text))
                if self._whole or piece.split == "train":
                    yield from self._chosen(piece.text)

    def _chosen(self, text: str) -> list[str]:
        parts = cut_text(text, _SAMPLE_CHARS)
        if self._bound >= 1:
            return parts
        numbers = np.arange(len(parts), dtype=np.uint64) + np.uint64(document_hash(text) >> 1)
        taken = mix64(numbers, 1) < np.uint64(self._bound * 2.0**64)
        return [part for part, take in zip(parts, taken.tolist(), strict=True) if take]


def pinned_tokenizer(config: TokenizerConfig, folder: Path) -> tuple[Tokenizer, dict[str, Any]] | None:
    """The tokenizer this dataset was given under the same config, with its note; None when there is none."""
    try:
        pin = read_json(folder / PIN)
        if pin["v"] != _PIN_VERSION or pin["config"] != _wish(config):
            return None
        tokenizer = load_tokenizer(folder / pin["folder"])
        return (tokenizer, pin) if tokenizer.sha256 == pin["sha256"] else None
    except (DataError, KeyError, TypeError):
        return None


def _wish(config: TokenizerConfig) -> dict[str, Any]:
    return asdict(config)


def existing_tokenizer(
    config: TokenizerConfig, folder: Path, *, base: Path, retrain: bool
) -> tuple[Tokenizer, dict[str, Any]] | None:
    """The imported or pinned tokenizer and the note about it for the manifest; None where one must be trained.

    Raises DataError, DeviceError.
    """
    if config.path:
        tokenizer = import_tokenizer(base / Path(os.path.expanduser(config.path)))
        return tokenizer, _pin(tokenizer, config, folder, {"imported": config.path})
    return None if retrain else pinned_tokenizer(config, folder)


def new_tokenizer(
    config: TokenizerConfig, plans: list[SourcePlan], folder: Path, *, advance: Advance
) -> tuple[Tokenizer, dict[str, Any]]:
    """A tokenizer trained on the plans' text, and the note about it. Raises DataError, DeviceError."""
    kind = choose_kind(config.kind)
    sample = TrainingSample(plans, limit=sample_limit(config), whole=kind == "char", advance=advance)
    scratch = folder / f".tmp-tokenizer-{os.getpid()}"
    try:
        tokenizer = train_tokenizer(config, sample, scratch, vocab_size=derive_vocab_size(sample.corpus_bytes))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return tokenizer, _pin(tokenizer, config, folder, {"trained_on_bytes": sample.corpus_bytes})


def tokenizer_of_texts(
    config: TokenizerConfig, texts: Callable[[], Iterator[str]], folder: Path
) -> tuple[Tokenizer, dict[str, Any]]:
    """`new_tokenizer` on the first texts of a stream, as many bytes as a tokenizer is trained on."""
    sample = _FirstTexts(texts, sample_limit(config))
    scratch = folder / f".tmp-tokenizer-{os.getpid()}"
    try:
        size = sum(utf8_length(text) for text in sample)
        tokenizer = train_tokenizer(config, sample, scratch, vocab_size=derive_vocab_size(size))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return tokenizer, _pin(tokenizer, config, folder, {"trained_on_bytes": size})


class _FirstTexts:
    """May be read many times."""

    def __init__(self, texts: Callable[[], Iterator[str]], limit: int) -> None:
        self._texts, self._limit = texts, limit

    def __iter__(self) -> Iterator[str]:
        left = self._limit
        for text in self._texts():
            yield text
            left -= utf8_length(text)
            if left <= 0:
                return


def _pin(tokenizer: Tokenizer, config: TokenizerConfig, folder: Path, origin: dict[str, Any]) -> dict[str, Any]:
    """Saves a tokenizer in a folder named by its hash, then the note that makes it the dataset's."""
    name = f"tokenizer-{tokenizer.sha256[:16]}"
    tokenizer.save(folder / name)
    fsync_folder(folder)
    pin = {
        "v": _PIN_VERSION,
        "folder": name,
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "eot_id": tokenizer.eot_id,
        "sha256": tokenizer.sha256,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "note": "kept when sources change",
        "config": _wish(config),
        **origin,
    }
    write_json(folder / PIN, pin)
    return pin
