"""Example rows become chunks: ids, which of them are learned, and how long each example is.

A pass over the rows decides what is a copy and what is held out, a second one encodes. Questions, not rows, are held
out: every row that asks the same lies on the same side. Written and read by the dataset build alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.data.build_plan import SPLITS
from ondevice.data.build_scan import Advance, FileList, utf8_length
from ondevice.data.build_tokens import RECORD, chunk_entry, finished_record
from ondevice.data.chat import Lesson, chat_format, encode_conversation
from ondevice.data.chunks import ChunkHeader, chunk_dtype, write_chunk
from ondevice.data.contract import read_contract
from ondevice.data.documents import Problems
from ondevice.data.duplicates import document_hashes
from ondevice.data.examples import Example
from ondevice.data.examples_read import Row, find_kind, iter_examples
from ondevice.data.split import Split, validation_mask, validation_threshold
from ondevice.data.tokenizer import Tokenizer
from ondevice.data.tokenizer_base import content_hash
from ondevice.errors import DataError, UsageError
from ondevice.run.files import fsync_folder, sha256_of, write_json
from ondevice.run.schema import DataConfig

__all__ = [
    "EXAMPLES_VERSION",
    "ExampleWish",
    "encode_example",
    "example_wish",
    "refuse_examples",
    "template_sha256",
    "tokenise_examples",
]

EXAMPLES_VERSION = 1
_BATCH = 4096  # rows hashed at a time
_ASKED = 2000  # letters of a question that is kept to show


@dataclass(frozen=True, kw_only=True)
class ExampleWish:
    """What to read, and how."""

    kind: str
    lists: Sequence[FileList]
    data: DataConfig
    split: Split
    base: Path

    def facts(self, tokenizer: Tokenizer) -> dict[str, Any]:
        """What decides the examples besides their rows."""
        template = template_sha256(tokenizer, self.kind)
        return {
            "kind": self.kind,
            "too_long": self.data.too_long,
            "template_sha256": template,
            "contract_sha256": self.contract_sha256,
        }

    def told(self, tokenizer: Tokenizer, records: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """`facts`, how many ids of each source and split are learned, and a question, held out where one is."""
        sources = [source for record in records for source in record["sources"]]
        asked = [source[split]["asked"] for split in reversed(SPLITS) for source in sources if source[split]["asked"]]
        learned = {source["name"]: {split: source[split]["learned"] for split in SPLITS} for source in sources}
        return {**self.facts(tokenizer), "learned": learned, "asked": asked[0] if asked else ""}

    def keep_template(self, tokenizer: Tokenizer, folder: Path) -> None:
        """Lets the template that conversations are written with go along with a tokenizer, where it had none."""
        if tokenizer.chat is None and self.kind != "completion":
            tokenizer.chat = chat_format(tokenizer)
            tokenizer.save(folder)

    @property
    def contract_sha256(self) -> str:
        """Of the file; empty without a contract. Raises UsageError for what is no contract."""
        if not self.data.contract:
            return ""
        read_contract(Path(self.data.contract))
        return sha256_of(Path(self.data.contract))

    def texts(self) -> Iterator[str]:
        """Questions and answers, to train a tokenizer on."""
        for listed in self.lists:
            for row in self.rows(listed, Problems()):
                yield row.example.question
                yield row.example.answer

    def rows(self, listed: FileList, problems: Problems) -> Iterator[Row]:
        return iter_examples(listed.source, self.kind, base=self.base, bad_utf8=self.data.bad_utf8, problems=problems)


def refuse_examples(wish: ExampleWish | None) -> None:
    """Raises UsageError where sources that are to join a running chain hold examples."""
    if wish is not None:
        raise UsageError("Examples cannot be added to a chain that runs; begin a new run with them.")


def template_sha256(tokenizer: Tokenizer, kind: str) -> str:
    """Names the template that the examples are written with; a completion has none."""
    return "" if kind == "completion" else content_hash(chat_format(tokenizer).to_json())


def example_wish(data: DataConfig, lists: Sequence[FileList], split: Split, *, base: Path) -> ExampleWish | None:
    """What to read where the sources hold examples; None for plain text. Raises as `find_kind`."""
    kind = find_kind(data, base=base)
    return None if kind is None else ExampleWish(kind=kind, lists=lists, data=data, split=split, base=base)


def encode_example(example: Example, tokenizer: Tokenizer) -> Lesson:
    """Ids of an example, always with an end; only the assistant's turns, or the completion, are learned.

    Raises DataError where the chat template refuses the messages.
    """
    if example.messages is not None:
        return encode_conversation(example.messages, tokenizer)
    asked, told = tokenizer.encode(example.question), [*tokenizer.encode(example.answer), tokenizer.eot_id]
    start = asked or [tokenizer.eot_id]  # the first id of a text is never learned, so there must be one before it
    return Lesson(start + told, [False] * len(start) + [True] * len(told))


def tokenise_examples(
    wish: ExampleWish, tokenizer: Tokenizer, folder: Path, *, verify: bool, advance: Advance
) -> tuple[list[str], list[dict[str, Any]]]:
    """Keys and records of all sources, as `tokenise_source` has them, with ``learned`` ids a split.

    Sources are made together: what is held out of one must not be learned from another. Raises DataError.
    """
    whole = content_hash(
        [
            ["examples", EXAMPLES_VERSION, wish.kind, template_sha256(tokenizer, wish.kind), tokenizer.sha256],
            [wish.data.split, wish.data.chunk_tokens, wish.data.deduplicate],
            [listed.content for listed in wish.lists],
            *([wish.contract_sha256] if wish.data.contract else []),
        ]
    )
    folder.mkdir(exist_ok=True)
    keys = [content_hash([whole, number])[:20] for number in range(len(wish.lists))]
    records = [finished_record(folder / key, verify=verify) for key in keys]
    if all(record is not None for record in records):
        return keys, [record for record in records if record is not None]
    _keep_contract(wish)
    sides = _sides(wish)
    made = [
        _tokenise(wish, listed, side, tokenizer, folder / key, advance)
        for listed, side, key in zip(wish.lists, sides, keys, strict=True)
    ]
    fsync_folder(folder)
    return keys, made


def _keep_contract(wish: ExampleWish) -> None:
    """Refuses rows that break the contract, and held-out questions among those to learn. Raises DataError."""
    if not wish.data.contract:
        return
    from ondevice.data.check import ERROR, check_examples  # which encodes examples too

    contract = read_contract(Path(wish.data.contract))
    train = [wish.base / Path(listed.source.path).expanduser() for listed in wish.lists]
    held_out = [contract.held_out] if contract.held_out is not None else []
    report = check_examples(train, held_out, kind=wish.kind, contract=contract)
    fault = next((fault for fault in report.faults if fault.level == ERROR), None)
    if fault is not None:
        more = f" ({report.errors:,} such faults; `ondevice data check` shows them)" if report.errors > 1 else ""
        raise DataError(f"{fault.where}: {fault.text}{more}")


@dataclass(frozen=True)
class _Side:
    """For each row of a source: whether it is a copy of an earlier one, and whether it is held out."""

    copies: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.bool_]


def _sides(wish: ExampleWish) -> list[_Side]:
    questions, rows = [], []
    for listed in wish.lists:
        asked, whole = _hashes(wish.rows(listed, Problems()))
        questions.append(asked)
        rows.append(whole)
    every = np.concatenate(rows)
    _, first = np.unique(every, return_index=True)
    copies = np.ones(len(every), dtype=np.bool_)
    copies[first] = False
    if not wish.data.deduplicate:
        copies[:] = False
    bounds = np.cumsum([len(hashes) for hashes in rows])[:-1]
    held_out = _held_out(wish.split, questions)
    return [
        _Side(part, np.isin(asked, held_out)) for part, asked in zip(np.split(copies, bounds), questions, strict=True)
    ]


def _hashes(rows: Iterator[Row]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Of each row: the hash of its question and of the whole."""
    asked, whole = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    batch: list[Example] = []

    def flush() -> None:
        asked.append(document_hashes([each.question for each in batch]))
        whole.append(document_hashes([f"{len(each.question)} {each.question}{each.answer}" for each in batch]))
        batch.clear()

    for row in rows:
        batch.append(row.example)
        if len(batch) == _BATCH:
            flush()
    flush()
    return np.concatenate(asked), np.concatenate(whole)


def _held_out(split: Split, sources: list[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    """Hashes of the questions held out: a share of each source's, or of ``tail`` those that only its end asks."""
    chosen = [np.empty(0, np.uint64)]
    if split.kind == "tail":
        cuts = [int(len(asked) * (1 - split.share)) for asked in sources]
        heads = np.concatenate([asked[:cut] for asked, cut in zip(sources, cuts, strict=True)])
        chosen += [np.setdiff1d(asked[cut:], heads) for asked, cut in zip(sources, cuts, strict=True)]
    else:
        for asked in map(np.unique, sources):
            chosen.append(asked[validation_mask(asked, validation_threshold(asked, split.share))])
    return np.unique(np.concatenate(chosen))


def _tokenise(
    wish: ExampleWish, listed: FileList, side: _Side, tokenizer: Tokenizer, folder: Path, advance: Advance
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    problems = Problems()
    writers = {split: _Writer(folder, listed, split, tokenizer, wish.data.chunk_tokens) for split in SPLITS}
    number = -1
    for number, row in enumerate(wish.rows(listed, problems)):
        size = utf8_length(row.example.question) + utf8_length(row.example.answer)
        advance(size)
        if side.copies[number]:
            problems.add(listed.name, "duplicate_document", row.where)
            continue
        try:
            lesson = encode_example(row.example, tokenizer)
        except DataError as error:
            raise DataError(f"{row.where}: {error}") from error
        writers["val" if side.held_out[number] else "train"].add(lesson, size, row.example)
    if number < 0:
        raise DataError(f"{listed.source.path}: holds no example; write one JSON object a line.")
    record = {
        "sources": [
            {
                "name": listed.name,
                "language": listed.source.language,
                "documents": number + 1,
                "duplicates": int(side.copies.sum()),
                **{split: writer.close() for split, writer in writers.items()},
            }
        ],
        "chunks": [chunk for writer in writers.values() for chunk in writer.chunks],
        "problems": problems.to_json(),
    }
    write_json(folder / RECORD, record)
    return record


@dataclass
class _Buffer:
    """Values on their way into one chunk."""

    dtype: str
    parts: list[npt.NDArray[Any]] = field(default_factory=list)

    def take(self) -> npt.NDArray[Any]:
        joined = np.concatenate(self.parts) if self.parts else np.empty(0, np.int64)
        self.parts = []
        return joined


class _Writer:
    """Three streams of one split: ids, a 1 for each that is learned, and the lengths of the examples.

    Chunks hold whole examples, and about as many ids as were asked for.
    """

    def __init__(self, folder: Path, listed: FileList, split: str, tokenizer: Tokenizer, chunk_tokens: int) -> None:
        self._folder, self._listed, self._split, self._limit = folder, listed, split, chunk_tokens
        self._streams = {
            split: _Buffer(chunk_dtype(tokenizer.vocab_size)),
            f"{split}_learned": _Buffer("uint8"),
            f"{split}_lengths": _Buffer("uint32"),
        }
        self._buffered = self._index = self._first = 0
        self._documents = self._tokens = self._bytes = self._learned = 0
        self._asked = ""
        self.chunks: list[dict[str, Any]] = []

    def add(self, lesson: Lesson, size: int, example: Example) -> None:
        self._asked = self._asked or example.asked[:_ASKED]
        values = (lesson.ids, lesson.learned, [len(lesson.ids)])
        for buffer, value in zip(self._streams.values(), values, strict=True):
            buffer.parts.append(np.array(value, dtype=np.int64))
        self._buffered += len(lesson.ids)
        self._documents += 1
        self._tokens += len(lesson.ids)
        self._bytes += size
        self._learned += sum(lesson.learned)
        if self._buffered >= self._limit:
            self._write()

    def close(self) -> dict[str, Any]:
        """Writes what is left; gives what there was in all."""
        if self._buffered:
            self._write()
        return {
            "documents": self._documents,
            "tokens": self._tokens,
            "bytes": self._bytes,
            "learned": self._learned,
            "asked": self._asked,
        }

    def _write(self) -> None:
        for name, buffer in self._streams.items():
            values = buffer.take()
            path = self._folder / f"{self._listed.name}-{name}-{self._index:06d}.chunk"
            header = ChunkHeader(
                source=self._listed.name,
                language=self._listed.source.language,
                split=name,
                index=self._index,
                dtype=buffer.dtype,
                tokens=len(values),
                first_document=self._first,
                last_document=self._documents - 1,
                end_offset=int(self._buffered),
                last_document_ends=True,
            )
            self.chunks.append(chunk_entry(path, write_chunk(path, values, header)))
        self._index += 1
        self._first, self._buffered = self._documents, 0
