"""The second pass: the kept documents of one source become chunk files, resumable after any kill.

A source's chunks live in a folder named by everything that decides them; the record ``source.json`` in it is written
last. Chunks that are already there are kept and encoding goes on behind them.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.data.build_plan import SPLITS, Encoded, Piece, SourcePlan
from ondevice.data.build_scan import Advance, utf8_length
from ondevice.data.build_threads import WriteBehind, read_ahead
from ondevice.data.chunks import ChunkHeader, chunk_dtype, verify_chunk, write_chunk
from ondevice.data.documents import Problems
from ondevice.data.items import ItemCutter
from ondevice.data.scores import are_scores_there, write_scores
from ondevice.data.sources_types import PROGRAMMING
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import DataError
from ondevice.run.files import fsync_folder, read_json, write_json
from ondevice.run.schema import DataConfig

__all__ = ["RECORD", "chunk_entry", "finished_record", "tokenise_source"]

RECORD = "source.json"
_BATCH_CHARS = 1 << 19
_BATCH_PIECES = 2048
_SYNCING = 4  # files the disk is asked to make durable at a time: it takes neighbours in one go


def finished_record(folder: Path, *, verify: bool) -> dict[str, Any] | None:
    """The record of a source whose chunks are all there, else None.

    ``verify`` also compares every chunk with its hash; a damaged one is deleted, so that it is made again.
    """
    try:
        record: dict[str, Any] = read_json(folder / RECORD)
        sound = [_sound(folder / chunk["file"], chunk, verify) for chunk in record["chunks"]]
        sound.append(are_scores_there(folder, record, verify=verify))
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
    plan: SourcePlan, tokenizer: Tokenizer, folder: Path, *, data: DataConfig, advance: Advance
) -> dict[str, Any]:
    """Writes the missing chunks of a source and its record, which is returned. Raises DataError, ResourceError."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    problems = Problems.from_json(plan.scan.problems)
    with WriteBehind() as writing, closing(read_ahead(_batches(plan.stretches(problems)))) as batches:
        run = _Run(plan, tokenizer, folder, data, writing)
        for batch in batches:
            advance(run.add(batch))
        record = run.finish(problems)
    _make_durable(folder, record)
    write_json(folder / RECORD, record)
    return record


def _make_durable(folder: Path, record: dict[str, Any]) -> None:
    """All chunks at once, which costs the disk little more than one; until the record exists, each is verified by its
    hash before it is used."""
    with ThreadPoolExecutor(_SYNCING, thread_name_prefix="sync") as pool:
        list(pool.map(_sync, [folder / chunk["file"] for chunk in record["chunks"]]))
    fsync_folder(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _batches(stretches: Iterator[Piece | Encoded]) -> Iterator[list[Piece] | Encoded]:
    """Pieces in lists that are worth a call of the tokenizer, in the order they come."""
    batch: list[Piece] = []
    chars = 0
    for stretch in stretches:
        full = chars >= _BATCH_CHARS or len(batch) == _BATCH_PIECES
        if batch and (full or isinstance(stretch, Encoded)):
            yield batch
            batch, chars = [], 0
        if isinstance(stretch, Encoded):
            yield stretch
        else:
            batch.append(stretch)
            chars += len(stretch.text)
    if batch:
        yield batch


@dataclass
class _Tally:
    """``documents`` counts what is followed by end-of-text: documents, their pieces, or items."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0


class _Run:
    """Encodes batches and hands the ids to the writer of each part and split."""

    def __init__(
        self, plan: SourcePlan, tokenizer: Tokenizer, folder: Path, data: DataConfig, writing: WriteBehind
    ) -> None:
        self._plan = plan
        self._folder = folder
        self._tokenizer = tokenizer
        self._cutter = ItemCutter(tokenizer, data.items) if data.items.max_tokens else None
        self._cuts: dict[int, Counter[str]] = defaultdict(Counter)
        self._scores: dict[int, list[float]] = defaultdict(list)
        self._count_unknown = getattr(tokenizer, "count_unknown", None)
        self._writing = writing
        self._unknown = Problems()  # the reading thread fills the other one meanwhile
        dtype = self._dtype = chunk_dtype(tokenizer.vocab_size)
        self._writers: dict[tuple[int, str], _Writer] = {}
        self._tallies: dict[tuple[int, str], _Tally] = {}
        for index, part in enumerate(plan.scan.parts):
            for split in SPLITS:
                common = {"source": part.name, "language": part.language, "split": split, "dtype": dtype}
                self._writers[index, split] = _Writer(
                    folder, f"{index:03d}-{part.name}-{split}", common, data.chunk_tokens, writing
                )
                self._tallies[index, split] = _Tally()

    def add(self, batch: list[Piece] | Encoded) -> int:
        """Takes the next documents of each part and split; returns how many bytes of text they have."""
        if isinstance(batch, Encoded):
            return self._add_ids(batch)
        return self._add_texts(batch) if self._cutter is None else self._add_items(batch, self._cutter)

    def _add_items(self, batch: list[Piece], cutter: ItemCutter) -> int:
        """All are encoded, also those whose chunks are there: how many items a document has is not known before."""
        size, start = 0, 0
        ids, lengths = self._tokenizer.encode_documents([piece.text for piece in batch])
        for piece, end in zip(batch, np.cumsum(lengths).tolist(), strict=True):
            is_code, trains = self._plan.scan.parts[piece.part].language in PROGRAMMING, piece.split == "train"
            laid, counts, cuts = cutter.lay_out(ids[start:end], is_code=is_code, overlaps=trains)
            start = end
            self._cuts[piece.part] += cuts
            self._note_scores(piece, len(counts))
            text_bytes = utf8_length(piece.text)
            size += self._add_ids(Encoded(piece.part, piece.split, text_bytes, laid.astype(self._dtype), counts))
            self._note_unknown(piece)
        return size

    def _note_scores(self, piece: Piece, items: int) -> None:
        if piece.score is not None and piece.split == "train":
            self._scores[piece.part] += [piece.score] * items

    def _add_ids(self, batch: Encoded) -> int:
        key = batch.part, batch.split
        tally, writer = self._tallies[key], self._writers[key]
        skipped = max(0, min(writer.wanted - tally.documents, len(batch.lengths)))
        ends = np.cumsum(batch.lengths)
        at = int(ends[skipped - 1]) if skipped else 0
        if skipped < len(ends):
            writer.add(tally.documents + skipped, batch.ids[at:], ends[skipped:] - at)
        tally.documents += len(batch.lengths)
        tally.bytes += batch.bytes
        return batch.bytes

    def _add_texts(self, batch: list[Piece]) -> int:
        groups: dict[tuple[int, str], list[Piece]] = {}
        for piece in batch:
            groups.setdefault((piece.part, piece.split), []).append(piece)
        size, wanted, runs = 0, [], []
        for key, pieces in groups.items():
            tally, writer = self._tallies[key], self._writers[key]
            first = max(tally.documents, writer.wanted)
            if taken := pieces[first - tally.documents :]:
                wanted += taken
                runs.append((writer, first, len(taken)))
            size += self._count(tally, pieces)
        if wanted:
            self._hand_out(*self._tokenizer.encode_documents([piece.text for piece in wanted]), runs)
        return size

    def _count(self, tally: _Tally, pieces: list[Piece]) -> int:
        size = sum([utf8_length(piece.text) for piece in pieces])
        tally.documents += len(pieces)
        tally.bytes += size
        for piece in pieces:
            self._note_scores(piece, 1)
            self._note_unknown(piece)
        return size

    def _note_unknown(self, piece: Piece) -> None:
        if self._count_unknown and (unknown := self._count_unknown(piece.text)):
            self._unknown.add(self._plan.scan.parts[piece.part].name, "unknown_symbol", piece.origin, unknown)

    def _hand_out(
        self, ids: npt.NDArray[Any], lengths: npt.NDArray[np.int64], runs: list[tuple[_Writer, int, int]]
    ) -> None:
        """Gives each writer the ids of its documents: so many of those in the row, the first with this number."""
        ends = np.cumsum(lengths)
        document = token = 0
        for writer, first, count in runs:
            own = ends[document : document + count] - token
            # A copy: a view would keep the ids of all texts in memory until the writer's chunk is full.
            writer.add(first, ids[token : token + own[-1]].astype(self._dtype), own)
            document, token = document + count, token + int(own[-1])

    def finish(self, problems: Problems) -> dict[str, Any]:
        for writer in self._writers.values():
            writer.close()
        self._writing.wait()
        problems.merge(self._unknown)
        chunks = []
        for key, writer in self._writers.items():
            chunks += writer.chunks
            self._tallies[key].tokens = sum(chunk["tokens"] for chunk in writer.chunks)
        return {
            "sources": [self._source(index) for index in range(len(self._plan.scan.parts))],
            "chunks": chunks,
            "problems": problems.to_json(),
            "files": self._plan.listed.files,
            "scan": self._plan.scan.records_file.name,
        }

    def _source(self, index: int) -> dict[str, Any]:
        part = self._plan.scan.parts[index]
        return {
            "name": part.name,
            "language": part.language,
            "documents": self._plan.documents(index),
            "duplicates": self._plan.duplicates(index),
            **{split: asdict(self._tallies[index, split]) for split in SPLITS},
            **self._told_items(index),
        }

    def _told_items(self, index: int) -> dict[str, Any]:
        """How documents were cut, and the file of their scores, where there is anything to tell."""
        told: dict[str, Any] = {}
        if cuts := dict(sorted(self._cuts[index].items())):
            told = {"overlap_tokens": cuts.pop("overlap_tokens", 0), "cuts": cuts}
        if scores := self._scores[index]:
            name = f"{index:03d}-{self._plan.scan.parts[index].name}-train.scores"
            told["scores"] = write_scores(self._folder / name, scores)
        return told


class _Writer:
    """Fills the chunks of one part and split, going on behind those that are on disk already."""

    def __init__(
        self, folder: Path, prefix: str, common: dict[str, str], chunk_tokens: int, writing: WriteBehind
    ) -> None:
        self._folder = folder
        self._prefix = prefix
        self._common: dict[str, Any] = common
        self._chunk_tokens = chunk_tokens
        self._writing = writing
        self.chunks: list[dict[str, Any]] = []  # complete only after the writing thread was waited for
        self._begun = 0  # chunks that are on disk or on their way
        self._done = -1  # the last document whose ids were on disk at the start, at least in part
        self._done_offset = 0
        self._done_whole = True
        self._buffer: list[npt.NDArray[Any]] = []
        self._buffered = 0
        self._first = 0
        self._resume()

    def _resume(self) -> None:
        """Takes the chunks that are on disk into the list."""
        while True:
            path = self._next_path()
            try:
                header = verify_chunk(path)
            except DataError:
                return
            self.chunks.append(chunk_entry(path, header))
            self._begun += 1
            self._done, self._done_offset = header.last_document, header.end_offset
            self._done_whole = header.last_document_ends

    def _next_path(self) -> Path:
        return self._folder / f"{self._prefix}-{self._begun:06d}.chunk"

    @property
    def wanted(self) -> int:
        """The number of the first document that the chunks on disk do not hold all of."""
        return self._done + 1 if self._done_whole else self._done

    def add(self, first: int, ids: npt.NDArray[Any], ends: npt.NDArray[np.int64]) -> None:
        """Appends the next documents, the first of them number ``first``, writing every chunk that becomes full.

        ``ends[i]`` is where the i-th document, its end-of-text id included, ends in ``ids``.
        """
        at = self._done_offset if first == self._done else 0
        while at < len(ids):
            if not self._buffered:
                self._first = first + int(np.searchsorted(ends, at, side="right"))
            taken = ids[at : at + self._chunk_tokens - self._buffered]
            self._buffer.append(taken)
            self._buffered += len(taken)
            at += len(taken)
            last = int(np.searchsorted(ends, at))
            begin = int(ends[last - 1]) if last else 0
            self._last = (first + last, at - begin, at == int(ends[last]))
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
            index=self._begun,
            tokens=self._buffered,
            first_document=self._first,
            last_document=number,
            end_offset=offset,
            last_document_ends=ends,
        )
        path, buffer = self._next_path(), self._buffer
        self._buffer, self._buffered = [], 0
        self._begun += 1
        self._writing.submit(
            lambda: self.chunks.append(
                chunk_entry(path, write_chunk(path, np.concatenate(buffer), header, durable=False))
            )
        )


def chunk_entry(path: Path, header: ChunkHeader) -> dict[str, Any]:
    """A chunk as the record lists it."""
    return {
        "file": path.name,
        "size": path.stat().st_size,
        "source": header.source,
        "split": header.split,
        "tokens": header.tokens,
        "first_document": header.first_document,
        "last_document": header.last_document,
        "sha256": header.sha256,
    }
