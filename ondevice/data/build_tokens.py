"""The second pass: the kept documents of one source become chunk files, resumable after any kill.

A source's chunks live in a folder named by everything that decides them; the record ``source.json`` in it is written
last. Chunks that are already there are kept and encoding goes on behind them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.data.build_plan import SPLITS, Piece, SourcePlan
from ondevice.data.build_scan import Advance, utf8_length
from ondevice.data.chunks import ChunkHeader, chunk_dtype, verify_chunk, write_chunk
from ondevice.data.documents import Problems
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import DataError
from ondevice.run.files import read_json, write_json

__all__ = ["finished_record", "tokenise_source"]

RECORD = "source.json"
_BATCH_CHARS = 1 << 19
_BATCH_PIECES = 2048


def finished_record(folder: Path, *, verify: bool) -> dict[str, Any] | None:
    """The record of a source whose chunks are all there, else None.

    ``verify`` also compares every chunk with its hash; a damaged one is deleted, so that it is made again.
    """
    try:
        record: dict[str, Any] = read_json(folder / RECORD)
        sound = [_sound(folder / chunk["file"], chunk, verify) for chunk in record["chunks"]]
    except (DataError, KeyError, TypeError):
        return None
    return record if all(sound) else None


def _sound(path: Path, chunk: dict[str, Any], verify: bool) -> bool:
    if not verify:
        return path.exists() and path.stat().st_size == chunk["size"]
    try:
        return verify_chunk(path).sha256 == chunk["sha256"]
    except DataError:
        path.unlink(missing_ok=True)
        return False


def tokenise_source(
    plan: SourcePlan, tokenizer: Tokenizer, folder: Path, *, chunk_tokens: int, advance: Advance
) -> dict[str, Any]:
    """Writes the missing chunks of a source and its record, which is returned. Raises DataError, ResourceError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    problems = Problems.from_json(plan.scan.problems)
    run = _Run(plan, tokenizer, folder, chunk_tokens)
    for batch in _batches(plan.pieces(problems)):
        run.add(batch, problems)
        advance(sum(utf8_length(piece.text) for piece in batch))
    record = run.finish(problems)
    write_json(folder / RECORD, record)
    return record


def _batches(pieces: Iterator[Piece]) -> Iterator[list[Piece]]:
    batch: list[Piece] = []
    chars = 0
    for piece in pieces:
        batch.append(piece)
        chars += len(piece.text)
        if chars >= _BATCH_CHARS or len(batch) == _BATCH_PIECES:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


@dataclass
class _Tally:
    documents: int = 0
    tokens: int = 0
    bytes: int = 0


class _Run:
    """Encodes batches and hands the ids to the writer of each part and split."""

    def __init__(self, plan: SourcePlan, tokenizer: Tokenizer, folder: Path, chunk_tokens: int) -> None:
        self._plan = plan
        self._tokenizer = tokenizer
        self._count_unknown = getattr(tokenizer, "count_unknown", None)
        dtype = chunk_dtype(tokenizer.vocab_size)
        self._eot = np.array([tokenizer.eot_id], dtype=dtype)
        self._writers: dict[tuple[int, str], _Writer] = {}
        self._tallies: dict[tuple[int, str], _Tally] = {}
        for index, part in enumerate(plan.scan.parts):
            for split in SPLITS:
                prefix = f"{index:03d}-{part.name}-{split}"
                self._writers[index, split] = _Writer(
                    folder, prefix, part.name, part.language, split, dtype, chunk_tokens
                )
                self._tallies[index, split] = _Tally()

    def add(self, batch: list[Piece], problems: Problems) -> None:
        numbers = [self._counted(piece, problems) for piece in batch]
        open_pieces = [
            (piece, number)
            for piece, number in zip(batch, numbers, strict=True)
            if not self._writers[piece.part, piece.split].has(number)
        ]
        encoded = self._tokenizer.encode_batch([piece.text for piece, _ in open_pieces])
        for (piece, number), ids in zip(open_pieces, encoded, strict=True):
            self._writers[piece.part, piece.split].add(number, ids, self._eot)

    def _counted(self, piece: Piece, problems: Problems) -> int:
        """Counts a piece; returns its number among those of its part and split."""
        tally = self._tallies[piece.part, piece.split]
        tally.documents += 1
        tally.bytes += utf8_length(piece.text)
        if self._count_unknown and (unknown := self._count_unknown(piece.text)):
            problems.add(self._plan.scan.parts[piece.part].name, "unknown_symbol", piece.origin, unknown)
        return tally.documents - 1

    def finish(self, problems: Problems) -> dict[str, Any]:
        chunks = []
        for key, writer in self._writers.items():
            writer.close()
            chunks += writer.chunks
            self._tallies[key].tokens = sum(chunk["tokens"] for chunk in writer.chunks)
        return {
            "sources": [self._source(index) for index in range(len(self._plan.scan.parts))],
            "chunks": chunks,
            "problems": problems.to_json(),
        }

    def _source(self, index: int) -> dict[str, Any]:
        part = self._plan.scan.parts[index]
        return {
            "name": part.name,
            "language": part.language,
            "documents": self._plan.documents(index),
            "duplicates": self._plan.duplicates(index),
            **{split: asdict(self._tallies[index, split]) for split in SPLITS},
        }


class _Writer:
    """Fills the chunks of one part and split, going on behind those that are on disk already."""

    def __init__(
        self, folder: Path, prefix: str, source: str, language: str, split: str, dtype: str, chunk_tokens: int
    ) -> None:
        self._folder = folder
        self._prefix = prefix
        self._common = {"source": source, "language": language, "split": split, "dtype": dtype}
        self._dtype = np.dtype(dtype)
        self._chunk_tokens = chunk_tokens
        self.chunks: list[dict[str, Any]] = []
        self._done = -1  # the last document whose ids are in a chunk, at least in part
        self._done_offset = 0
        self._done_whole = True
        self._buffer: list[npt.NDArray[Any]] = []
        self._buffered = 0
        self._first = 0
        self._resume()

    def _resume(self) -> None:
        while True:
            try:
                header = verify_chunk(self._folder / self._name())
            except DataError:
                return
            self._note(header)

    def _name(self) -> str:
        return f"{self._prefix}-{len(self.chunks):06d}.chunk"

    def _note(self, header: ChunkHeader) -> None:
        """Takes a chunk that is on disk into the list."""
        name = self._name()
        self.chunks.append(
            {
                "file": name,
                "size": (self._folder / name).stat().st_size,
                "source": header.source,
                "split": header.split,
                "tokens": header.tokens,
                "first_document": header.first_document,
                "last_document": header.last_document,
                "sha256": header.sha256,
            }
        )
        self._done, self._done_offset = header.last_document, header.end_offset
        self._done_whole = header.last_document_ends

    def has(self, number: int) -> bool:
        """Whether the chunks on disk already hold all of a document."""
        return number < self._done or (number == self._done and self._done_whole)

    def add(self, number: int, ids: npt.NDArray[Any], eot: npt.NDArray[Any]) -> None:
        """Appends a document and its end-of-text id, writing every chunk that becomes full."""
        document = np.concatenate([ids.astype(self._dtype, copy=False), eot])
        at = self._done_offset if number == self._done and not self._done_whole else 0
        while at < len(document):
            if not self._buffered:
                self._first = number
            taken = document[at : at + self._chunk_tokens - self._buffered]
            at += len(taken)
            self._buffer.append(taken)
            self._buffered += len(taken)
            self._last = (number, at, at == len(document))
            if self._buffered == self._chunk_tokens:
                self._write()

    def close(self) -> None:
        """Writes what is left as the last, shorter chunk."""
        if self._buffered:
            self._write()

    def _write(self) -> None:
        number, offset, ends = self._last
        header = ChunkHeader(
            **self._common,
            index=len(self.chunks),
            tokens=self._buffered,
            first_document=self._first,
            last_document=number,
            end_offset=offset,
            last_document_ends=ends,
        )
        ids = np.concatenate(self._buffer)
        self._buffer, self._buffered = [], 0
        self._note(write_chunk(self._folder / self._name(), ids, header))
