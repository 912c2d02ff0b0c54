"""Tokenizers: train one, load one, choose one. Each kind lives in a file of its own and is imported when needed.

>>> tokenizer = train_tokenizer(TokenizerConfig(kind="byte"), ["text"], folder, vocab_size=None)
>>> load_tokenizer(folder).decode(tokenizer.encode("text"))
'text'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ondevice.data.chat_template import CHAT_FILE, ChatFormat, read_chat_format
from ondevice.data.tokenizer_base import EOT, StreamDecoder
from ondevice.data.tokenizer_files import META, read_meta, read_tokenizer_file
from ondevice.errors import DataError
from ondevice.run.schema import TokenizerConfig

__all__ = [
    "EOT",
    "StreamDecoder",
    "Tokenizer",
    "choose_kind",
    "derive_vocab_size",
    "import_tokenizer",
    "load_tokenizer",
    "sample_limit",
    "train_tokenizer",
]


class Tokenizer(Protocol):
    """Text to ids and back, exactly. ``sha256`` covers whatever decides the ids."""

    kind: str
    eot_id: int
    sha256: str
    chat: ChatFormat | None

    @property
    def vocab_size(self) -> int: ...
    @property
    def special_ids(self) -> Mapping[str, int]: ...
    @property
    def stripping(self) -> Mapping[str, tuple[bool, bool]]: ...
    def encode(self, text: str) -> list[int]: ...
    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]: ...
    def encode_documents(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def decode_bytes(self, ids: Iterable[int]) -> bytes: ...
    def byte_lengths(self) -> npt.NDArray[np.int32]: ...
    def files(self) -> dict[str, bytes]: ...
    def save(self, folder: Path) -> None: ...


def choose_kind(kind: str) -> str:
    """What ``auto`` means on this machine: the best kind whose package is installed."""
    if kind != "auto":
        return kind
    if find_spec("tokenizers") is not None:
        return "bpe"
    return "sentencepiece-bpe" if find_spec("sentencepiece") is not None else "byte"


def derive_vocab_size(corpus_bytes: int) -> int:
    """Vocabulary for a corpus: 1,024 below 300 kB, twice as many with every tenfold text, at most 32,768.

    The number of different words of a text grows like the square root of its length or slower (Heaps' law), and each
    id must be seen often enough to be learned: this keeps about 300 to 3,000 bytes of text for every id at the small
    end. A small model also pays for every id with a row of its embedding.
    """
    size, bound = 1024, 300_000
    while corpus_bytes >= bound and size < 32_768:
        size, bound = size * 2, bound * 10
    return size


def sample_limit(config: TokenizerConfig) -> int:
    """Bytes of text worth collecting to train this tokenizer: ``sample_mb``, less where the trainer needs it so."""
    from ondevice.data.tokenizer_sentencepiece import MAX_SAMPLE_BYTES

    limit = config.sample_mb * 1_000_000
    return min(limit, MAX_SAMPLE_BYTES.get(choose_kind(config.kind), limit))


def train_tokenizer(
    config: TokenizerConfig, texts: Iterable[str], folder: Path, *, vocab_size: int | None
) -> Tokenizer:
    """Trains the kind of tokenizer the config names on ``texts`` and saves it in ``folder``.

    ``vocab_size`` is the size to aim for where the config gives none; a size the config gives is kept or refused.
    ``texts`` must be iterable more than once. Raises DataError when the vocabulary is larger than the text
    supports, DeviceError when a package is missing.
    """
    kind = choose_kind(config.kind)
    aim = config.vocab_size or vocab_size or derive_vocab_size(0)
    tokenizer = _train(kind, config, texts, aim)
    tokenizer.save(folder)
    return tokenizer


def _train(kind: str, config: TokenizerConfig, texts: Iterable[str], aim: int) -> Tokenizer:
    exact = config.vocab_size is not None
    if kind == "byte":
        return _byte(config)
    if kind == "char":
        from ondevice.data.tokenizer_char import train_char

        return train_char(texts, vocab_size=config.vocab_size, min_frequency=config.min_frequency)
    if kind == "bpe":
        from ondevice.data.tokenizer_bpe import train_bpe

        return train_bpe(texts, vocab_size=aim, exact=exact, min_frequency=config.min_frequency)
    from ondevice.data.tokenizer_sentencepiece import train_sentencepiece

    return train_sentencepiece(texts, model_type=kind.removeprefix("sentencepiece-"), vocab_size=aim, exact=exact)


def _byte(config: TokenizerConfig) -> Tokenizer:
    from ondevice.data.tokenizer_byte import ByteTokenizer

    tokenizer = ByteTokenizer()
    if config.vocab_size not in (None, tokenizer.vocab_size):
        raise DataError(
            f"tokenizer.vocab_size = {config.vocab_size}: the byte tokenizer always has {tokenizer.vocab_size} ids; "
            "leave the key out."
        )
    return tokenizer


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that was saved in a folder. Raises DataError naming a damaged file, DeviceError."""
    meta = read_meta(folder)
    tokenizer = _load(folder, meta)
    if (tokenizer.vocab_size, tokenizer.eot_id) != (meta["vocab_size"], meta["eot_id"]):
        raise DataError(f"{folder / META}: does not belong to the files beside it; train the tokenizer again.")
    if CHAT_FILE in meta["files"]:
        tokenizer.chat = read_chat_format(folder)
    return tokenizer


def _load(folder: Path, meta: dict[str, Any]) -> Tokenizer:
    kind = meta["kind"]
    if kind == "byte":
        from ondevice.data.tokenizer_byte import ByteTokenizer

        return ByteTokenizer()
    if kind == "char":
        from ondevice.data.tokenizer_char import CharTokenizer

        return CharTokenizer.from_file(read_tokenizer_file(folder, "symbols.json", meta), folder)
    if kind == "bpe":
        from ondevice.data.tokenizer_bpe import from_json

        return from_json(folder / "tokenizer.json")
    if kind in ("sentencepiece-bpe", "sentencepiece-unigram"):
        from ondevice.data.tokenizer_sentencepiece import from_model_file

        return from_model_file(folder / "tokenizer.model")
    raise DataError(f"{folder / META}: unknown kind of tokenizer '{kind}'; update ondevice.")


def import_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer made elsewhere: our folder, ``tokenizer.json``, ``vocab.json`` beside ``merges.txt``, ``.model``.

    Raises DataError when there is none at the path or when it does not give back the text exactly.
    """
    if (path / META).exists():
        return load_tokenizer(path)
    tokenizer = _import(path)
    if path.is_dir():  # a model's folder; who names a file means its ids alone
        tokenizer.chat = read_chat_format(path)
    return tokenizer


def _import(path: Path) -> Tokenizer:
    if path.is_dir():
        path = _file_in(path)
    if not path.exists():
        raise DataError(f"{path}: no such file; set tokenizer.path to a tokenizer.")
    if path.suffix == ".model":
        from ondevice.data.tokenizer_sentencepiece import from_model_file

        return from_model_file(path)
    from ondevice.data.tokenizer_bpe import from_gpt2_files, from_json

    if path.name in ("vocab.json", "merges.txt"):
        return from_gpt2_files(path.with_name("vocab.json"), path.with_name("merges.txt"))
    return from_json(path)


def _file_in(folder: Path) -> Path:
    """The file of a folder that holds the tokenizer."""
    for name in ("tokenizer.json", "vocab.json", "tokenizer.model"):
        if (folder / name).exists():
            return folder / name
    if found := sorted(folder.glob("*.model")):
        return found[0]
    raise DataError(f"{folder}: holds no tokenizer.json, no vocab.json with merges.txt, and no .model file.")
