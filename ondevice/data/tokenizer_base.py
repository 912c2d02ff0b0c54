"""What every tokenizer shares: ids to bytes through one table, streaming decode, and where a long text may be cut.

A tokenizer is exact: joined, the bytes of the ids of a text are the text. Knows no particular vocabulary.
"""

from __future__ import annotations

import codecs
import hashlib
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ondevice.device.host import platform_name
from ondevice.errors import DataError, DeviceError

if TYPE_CHECKING:
    from ondevice.data.chat_template import ChatFormat

__all__ = [
    "EOT",
    "REPLACEMENT",
    "StreamDecoder",
    "TableTokenizer",
    "content_hash",
    "cut_text",
    "in_groups",
    "require",
    "surrogate_error",
]

EOT = "<|endoftext|>"
"""Name of the token between documents. Text that contains these letters is ordinary text."""

_GROUP_CHARS = 1 << 19
_TOKENIZERS = ("tokenizers", "sentencepiece")
REPLACEMENT = "\ufffd".encode()


class TableTokenizer(ABC):
    """A tokenizer whose ids each stand for fixed bytes.

    ``table`` holds the bytes of every id; the end-of-text id and other special ids stand for no bytes.
    """

    kind: str
    eot_id: int
    sha256: str
    chat: ChatFormat | None = None
    """The chat template that came with it, which decides no ids of ordinary text."""

    def __init__(self, table: Sequence[bytes]) -> None:
        self._table = list(table)

    @property
    def special_ids(self) -> Mapping[str, int]:
        """The special tokens by the names under which chat templates know them."""
        return {EOT: self.eot_id}

    @property
    def stripping(self) -> Mapping[str, tuple[bool, bool]]:
        """Special tokens that take the blanks before or after them along."""
        return {}

    @property
    def vocab_size(self) -> int:
        return len(self._table)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of a text, never the end-of-text id. Raises DataError for half a surrogate pair."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """The files that hold this tokenizer, by name."""

    def encode_batch(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Ids of each text, an integer array a text."""
        return [np.array(self.encode(text), dtype=np.int32) for text in texts]

    def encode_documents(self, texts: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Ids of all texts in a row, each followed by the end-of-text id, and how many each has with it."""
        end = np.array([self.eot_id], dtype=np.int32)
        batch = self.encode_batch(texts)
        lengths = np.array([len(ids) + 1 for ids in batch], dtype=np.int64)
        return np.concatenate([end[:0], *[part for ids in batch for part in (ids, end)]]), lengths

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        return b"".join([self._table[i] for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. Bytes that are no UTF-8, as random ids make, become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def byte_lengths(self) -> npt.NDArray[np.int32]:
        """Bytes each id stands for, shape [vocab_size]; 0 for the end-of-text id."""
        return np.array([len(piece) for piece in self._table], dtype=np.int32)

    def save(self, folder: Path) -> None:
        """Writes the files and, last, the meta file that makes the folder a tokenizer."""
        from ondevice.data.tokenizer_files import save_tokenizer

        save_tokenizer(self, folder)


class StreamDecoder:
    """Text from ids as they come; holds bytes back until their character is complete.

    >>> decoder = StreamDecoder(tokenizer)
    >>> [decoder.feed(i) for i in tokenizer.encode("è")], decoder.flush()
    (['', 'è'], '')
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        return self._decoder.decode(self._tokenizer.decode_bytes([token]))

    def flush(self) -> str:
        """What is left at the end: U+FFFD if a character never became complete."""
        return self._decoder.decode(b"", final=True)


def cut_text(text: str, limit: int) -> list[str]:
    """Pieces of at most ``limit`` characters; joined, they are the text.

    A cut lies before a single space between two other characters if the second half of a piece has one, else after
    such a newline. No token of a byte-level BPE crosses either place and none of sentencepiece crosses the first, so
    the ids of the pieces, joined, are the ids of the text; only longer runs without spaces are cut anywhere.
    """
    if len(text) <= limit:
        return [text]
    pieces, start = [], 0
    while len(text) - start > limit:
        end = _cut_point(text, start + limit // 2, start + limit)
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def in_groups(pieces: list[str]) -> Iterator[list[str]]:
    """The pieces in lists of about half a million characters: the libraries keep up to 150 bytes for every id of a
    call, and start threads at every call."""
    start = chars = 0
    for end, piece in enumerate(pieces, start=1):
        chars += len(piece)
        if chars >= _GROUP_CHARS or end == len(pieces):
            yield pieces[start:end]
            start, chars = end, 0


def _cut_point(text: str, low: int, high: int) -> int:
    for blank, after in ((" ", 0), ("\n", 1)):
        at = high
        while (at := text.rfind(blank, low, at)) > 0:
            if not text[at - 1].isspace() and not text[at + 1].isspace():
                return at + after
    return high


def join_ids(parts: Sequence[Any]) -> npt.NDArray[np.int32]:
    """Lists or arrays of ids as one array."""
    if len(parts) == 1:
        return np.asarray(parts[0], dtype=np.int32)
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])


def content_hash(value: Any) -> str:
    """SHA-256 of a JSON value in one canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def surrogate_error() -> DataError:
    return DataError("The text holds half of a surrogate pair, which is no character; remove it and try again.")


def require(package: str) -> Any:
    """Imports a package that not everyone needs. Raises DeviceError naming the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        otherwise = ', or set tokenizer.kind = "byte", which needs no package' if package in _TOKENIZERS else ""
        raise DeviceError(
            f"The {package} package is not installed: run `{_install_command(package)}`{otherwise}."
        ) from error


def _install_command(package: str) -> str:
    if platform_name() != "android" or package not in _TOKENIZERS:
        return f"pip install {package}"
    if package == "tokenizers":
        return "pkg upgrade && pkg install tur-repo && pkg install python-tokenizers"
    return f'pkg upgrade && pkg install clang cmake && LDFLAGS="-llog" pip install {package}'
