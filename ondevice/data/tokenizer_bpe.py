"""Byte-level BPE through the ``tokenizers`` package: trained here, or read from Hugging Face and GPT-2 files.

Also reads the ``tokenizer.json`` that the sentencepiece tokenizers write, so that a phone without that package can
use them. Special ids are never made from text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy.typing as npt

from ondevice.data.tokenizer_base import (
    EOT,
    TableTokenizer,
    content_hash,
    cut_text,
    in_groups,
    join_ids,
    require,
    surrogate_error,
)
from ondevice.errors import DataError

__all__ = ["BpeTokenizer", "from_gpt2_files", "from_json", "load_engine", "train_bpe"]

FILE = "tokenizer.json"
_PIECE_CHARS = 4096  # the library slows down on long texts: 2 MB/s uncut, 9 MB/s in pieces
_EOT_NAMES = (EOT, "<|end_of_text|>", "</s>", "<eos>")
# What decides the ids; the rest of the file (padding, post-processing, version) does not.
_MEANING = ("model", "normalizer", "pre_tokenizer", "added_tokens", "decoder")


class BpeTokenizer(TableTokenizer):
    """A ``tokenizer.json`` whose ids each stand for fixed bytes."""

    kind = "bpe"

    def __init__(self, content: str, *, where: str = FILE) -> None:
        self._engine = load_engine(content, where)
        spec = json.loads(content)
        super().__init__(_table(spec, self._engine.get_vocab(with_added_tokens=True), where))
        self._content = content
        self._special = [token for token in spec.get("added_tokens") or [] if token["special"]]
        self.eot_id = _eot_id(self._engine, where)
        self.sha256 = content_hash({key: spec.get(key) for key in _MEANING})

    @property
    def special_ids(self) -> Mapping[str, int]:
        return {token["content"]: token["id"] for token in self._special}

    @property
    def stripping(self) -> Mapping[str, tuple[bool, bool]]:
        return {token["content"]: (token["lstrip"], token["rstrip"]) for token in self._special}

    def encode(self, text: str) -> list[int]:
        try:
            ids = [self._engine.encode(piece, add_special_tokens=False).ids for piece in cut_text(text, _PIECE_CHARS)]
        except TypeError as error:  # what the library says of half a surrogate pair
            raise surrogate_error() from error
        return [i for part in ids for i in part]

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        pieces = [cut_text(text, _PIECE_CHARS) for text in texts]
        ids = self._ids([piece for part in pieces for piece in part])
        return [join_ids([next(ids) for _ in part]) for part in pieces]

    def _ids(self, pieces: list[str]) -> Iterator[list[int]]:
        for group in in_groups(pieces):
            try:
                encodings = self._engine.encode_batch_fast(group, add_special_tokens=False)
            except TypeError as error:
                raise surrogate_error() from error
            for encoding in encodings:
                yield encoding.ids

    def files(self) -> dict[str, bytes]:
        return {FILE: self._content.encode()}


def load_engine(content: str, where: str) -> Any:
    """The library's tokenizer, set to treat special tokens in text as text. Raises DataError, DeviceError."""
    tokenizers = require("tokenizers")
    try:
        engine = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # the library raises plain Exception
        raise DataError(f"{where}: not a tokenizer.json that the tokenizers package reads ({error}).") from error
    engine.encode_special_tokens = True
    engine.no_truncation()
    engine.no_padding()
    return engine


def from_json(path: Path) -> BpeTokenizer:
    """Reads a Hugging Face ``tokenizer.json``. Raises DataError for one that is not exact, such as BERT's."""
    return BpeTokenizer(_read(path), where=str(path))


def from_gpt2_files(vocab: Path, merges: Path) -> BpeTokenizer:
    """Reads GPT-2's ``vocab.json`` and ``merges.txt``."""
    tokenizers = require("tokenizers")
    for path in (vocab, merges):
        _read(path)
    try:
        engine = _byte_level(tokenizers, tokenizers.models.BPE.from_file(str(vocab), str(merges)))
    except Exception as error:
        raise DataError(f"{vocab}, {merges}: not a vocabulary and its merges ({error}).") from error
    engine.add_special_tokens([EOT])
    return BpeTokenizer(engine.to_str(), where=str(vocab))


def train_bpe(texts: Iterable[str], *, vocab_size: int, exact: bool, min_frequency: int) -> BpeTokenizer:
    """Learns merges from texts. ``exact``: the vocabulary was asked for, so a smaller one is a DataError."""
    tokenizers = require("tokenizers")
    if vocab_size < 257:
        raise DataError(
            f"tokenizer.vocab_size = {vocab_size}: a bpe vocabulary has at least 257 ids "
            "(the bytes and the end of a text)."
        )
    engine = _byte_level(tokenizers, tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=[EOT],
        # In the order of the bytes: the library's own alphabet() comes in another order in every process.
        initial_alphabet=list(byte_letters().values()),
        show_progress=False,
    )
    engine.train_from_iterator(_small(texts), trainer)
    if exact and (largest := engine.get_vocab_size()) < vocab_size:
        raise DataError(
            f"tokenizer.vocab_size = {vocab_size} is more than this text supports: with min_frequency = "
            f"{min_frequency} it has at most {largest} ids, so set it to at most {largest} or add text."
        )
    return BpeTokenizer(engine.to_str())


def _small(texts: Iterable[str]) -> Iterator[str]:
    """Pieces, so that the library never holds a long text."""
    for text in texts:
        yield from cut_text(text, _PIECE_CHARS)


def _byte_level(tokenizers: Any, model: Any) -> Any:
    engine = tokenizers.Tokenizer(model)
    engine.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = tokenizers.decoders.ByteLevel()
    return engine


@cache
def byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte in byte-level vocabularies, as GPT-2's encoder defines it."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return dict(sorted(letters.items()))


def _table(spec: dict[str, Any], vocab: dict[str, int], where: str) -> list[bytes]:
    """The bytes of every id. Raises DataError when text would not come back as it was given."""
    steps = _steps(spec.get("decoder"))
    if steps == ["ByteLevel"] and _keeps_bytes(spec, vocab):
        letters = {letter: bytes([byte]) for byte, letter in byte_letters().items()}
        table = {i: b"".join(letters.get(c) or c.encode() for c in name) for name, i in vocab.items()}
    elif steps == ["ByteFallback", "Fuse"] and not spec.get("normalizer"):
        table = {i: _fallback_bytes(name) for name, i in vocab.items()}
    else:
        raise DataError(
            f"{where}: this tokenizer does not give back the text it was given; take a byte-level BPE (as GPT-2, "
            "Llama 3, Qwen and SmolLM have) or a sentencepiece .model file."
        )
    for token in spec.get("added_tokens") or []:
        table[token["id"]] = b"" if token["special"] else token["content"].encode()
    return [table.get(i, b"") for i in range(max(table) + 1)]


def _keeps_bytes(spec: dict[str, Any], vocab: dict[str, int]) -> bool:
    """Whether a byte-level tokenizer has every byte and neither adds nor changes one (NFC is let pass)."""
    normalizer, pre = spec.get("normalizer"), json.dumps(spec.get("pre_tokenizer"))
    complete = all(letter in vocab for letter in byte_letters().values())
    return complete and (not normalizer or normalizer["type"] == "NFC") and '"add_prefix_space": true' not in pre


def _steps(decoder: Any) -> list[str]:
    """Types of the steps of a decoder."""
    return [step["type"] for step in (decoder or {}).get("decoders", [decoder] if decoder else [])]


def _fallback_bytes(name: str) -> bytes:
    """``<0x41>`` is the byte 0x41, everything else is itself."""
    if len(name) == 6 and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.encode()


def _eot_id(engine: Any, where: str) -> int:
    for name in _EOT_NAMES:
        token: int | None = engine.token_to_id(name)
        if token is not None:
            return token
    raise DataError(f"{where}: has no end-of-text token ({', '.join(_EOT_NAMES)}); add one as a special token.")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
