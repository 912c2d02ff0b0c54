"""What the first reading of the sources found, kept on disk until the second pass: the ids of documents, or their text.

One scratch file for all sources of a build, of bounded size, that vanishes with the build. What it has no room for is
read from the sources again. Where the tokenizer is known before the scan, documents are encoded while the next ones
are read, and then only their ids are kept. Knows nothing of splits or chunks.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from ondevice.data.build_threads import WriteBehind
from ondevice.data.chunks import chunk_dtype
from ondevice.data.documents import Document
from ondevice.data.tokenizer import Tokenizer
from ondevice.run.files import write_all

__all__ = ["LIMIT_BYTES", "KeptBlock", "KeptFile", "KeptSource"]

LIMIT_BYTES = 1 << 27  # of scratch file: a phone has little room, and larger builds take their minutes anyway
_ENCODERS = 3  # while one or two wait for the interpreter, which the reader holds, the library works for another
_SIZES = np.dtype([("bytes", "<u4"), ("ids", "<u4")])


@dataclass(frozen=True)
class KeptBlock:
    """Some documents, one behind the other. ``bytes`` is the length of each in UTF-8.

    ``lengths`` counts the ids of each with the end-of-text id, and is 0 for one that was not encoded; ``ids`` are those
    of all in a row. ``texts`` are those of the documents that were not encoded, in their order.
    """

    bytes: npt.NDArray[np.uint32]
    lengths: npt.NDArray[np.uint32]
    ids: npt.NDArray[Any]
    texts: list[str]
    joined_origins: str

    @property
    def documents(self) -> int:
        return len(self.bytes)

    def texts_and_origins(self) -> Iterator[tuple[str | None, str]]:
        """Those of every document, in order; None for the text of one that was encoded."""
        texts = iter(self.texts)
        for length, origin in zip(self.lengths.tolist(), self.joined_origins.split("\0"), strict=True):
            yield None if length else next(texts), origin


class _Block(NamedTuple):
    """Where the documents of one batch are in the file. All but ``documents`` in bytes."""

    start: int
    documents: int
    texts: int
    origins: int
    ids: int


class KeptFile:
    """The scratch file of a build.

    ``tokenizer`` encodes the documents ahead; None leaves that to the second pass. The first ``unencoded`` documents of
    every name are never encoded here: of a source with few documents, the pieces are not known yet.
    """

    def __init__(
        self, folder: Path, *, tokenizer: Tokenizer | None, unencoded: int, limit_bytes: int = LIMIT_BYTES
    ) -> None:
        # Closed by `close`: it lives as long as the build.
        self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=folder, prefix=".tmp-kept-", buffering=0))  # noqa: SIM115
        self.tokenizer = tokenizer
        self.unencoded = unencoded
        self._room = limit_bytes
        self._end = 0

    def write(self, parts: Sequence[bytes]) -> int | None:
        """Where the parts now are, one behind the other; None when there is no room, and then there never is again."""
        size = sum(len(part) for part in parts)
        if size > self._room:
            self._room = 0
            return None
        try:
            for part in parts:
                write_all(self._file.fileno(), part)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            self._room = 0
            self._file.truncate(self._end)
            return None
        start, self._end = self._end, self._end + size
        self._room -= size
        return start

    def read(self, start: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, start)

    def close(self) -> None:
        self._file.close()


class KeptSource:
    """The documents of one source, from the first on, as far as there was room.

    >>> with KeptSource(kept_file) as kept:
    ...     kept.add(batch)
    """

    def __init__(self, file: KeptFile) -> None:
        self._file = file
        self._blocks: list[_Block] = []
        self._full = False
        self._seen: dict[str, int] = {}
        self._writing = WriteBehind()
        self._encoding = ThreadPoolExecutor(_ENCODERS, thread_name_prefix="encode-ahead")
        tokenizer = file.tokenizer
        self._dtype = np.dtype(chunk_dtype(tokenizer.vocab_size if tokenizer else 0))

    def __enter__(self) -> KeptSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        try:
            if error is None:
                self._writing.wait()
        finally:
            self._encoding.shutdown(wait=True, cancel_futures=True)
            self._writing.__exit__(kind, error, tb)

    @property
    def count(self) -> int:
        """How many documents are kept."""
        return sum(block.documents for block in self._blocks)

    @property
    def encoded(self) -> frozenset[str]:
        """Names of which documents were encoded, so that their text is not here."""
        return frozenset(name for name, seen in self._seen.items() if seen > self._file.unencoded)

    def add(self, batch: Sequence[Document], sizes: Sequence[int]) -> None:
        """Keeps the next documents, encoded by a thread; ``sizes`` are their bytes of UTF-8.

        Raises what went wrong with earlier ones.
        """
        if self._full:
            return
        late = [bool(self._file.tokenizer) and self._is_late(document.source) for document in batch]
        packed = self._encoding.submit(self._packed, batch, sizes, late)
        self._writing.submit(lambda: self._keep(len(batch), packed.result()))

    def _is_late(self, name: str) -> bool:
        """Counts one more document of this name; whether enough came before it to encode this one."""
        seen = self._seen[name] = self._seen.get(name, 0) + 1
        return seen > self._file.unencoded

    def _packed(self, batch: Sequence[Document], lengths: Sequence[int], late: list[bool]) -> list[bytes]:
        """The parts of a block: sizes, texts, origins, ids."""
        sizes = np.zeros(len(batch), dtype=_SIZES)
        sizes["bytes"] = lengths
        ids = self._encode([document.text for document in compress(batch, late)], late, sizes)
        texts = "".join([document.text for document, is_late in zip(batch, late, strict=True) if not is_late])
        origins = "\0".join([document.origin for document in batch]).encode("utf-8", "surrogatepass")
        return [sizes.tobytes(), texts.encode(), origins, ids]

    def _encode(self, texts: list[str], late: list[bool], sizes: npt.NDArray[Any]) -> bytes:
        """The ids of the late documents; how many each has goes to ``sizes``."""
        if not texts or self._file.tokenizer is None:
            return b""
        ids, sizes["ids"][late] = self._file.tokenizer.encode_documents(texts)
        return ids.astype(self._dtype).tobytes()

    def _keep(self, documents: int, parts: list[bytes]) -> None:
        start = None if self._full else self._file.write(parts)
        if start is None:
            self._full = True
        else:
            _, texts, origins, ids = parts
            self._blocks.append(_Block(start, documents, len(texts), len(origins), len(ids)))

    def blocks(self) -> Iterator[KeptBlock]:
        """All that is kept, in order."""
        for block in self._blocks:
            yield self._read(block)

    def _read(self, block: _Block) -> KeptBlock:
        head = block.documents * _SIZES.itemsize
        data = memoryview(self._file.read(block.start, head + block.texts + block.origins + block.ids))
        sizes = np.frombuffer(data[:head], dtype=_SIZES)
        texts, rest = data[head : head + block.texts], data[head + block.texts :]
        own = sizes["bytes"][sizes["ids"] == 0]
        return KeptBlock(
            bytes=sizes["bytes"],
            lengths=sizes["ids"],
            ids=np.frombuffer(rest[block.origins :], dtype=self._dtype),
            texts=[str(texts[start:end], "utf-8") for start, end in _spans(own)],
            joined_origins=str(rest[: block.origins], "utf-8", "surrogatepass"),
        )


def _spans(sizes: npt.NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Where each of the pieces begins and ends that lie one behind the other."""
    ends = np.cumsum(sizes, dtype=np.int64).tolist()
    return zip([0, *ends], ends, strict=False)
