"""The first pass: what documents a source has, as hashes and lengths, kept on disk for the next build.

A scan is valid as long as the content of the source's files is the same; a file that was only touched is recognised
by its hash. One that a power cut damaged is recognised by its own and made again, so nothing waits for the disk.
Written and read by the dataset build alone.
"""

from __future__ import annotations

import errno
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.data import sources
from ondevice.data.clean import rules_of
from ondevice.data.documents import Document, Problems
from ondevice.data.duplicates import hashes_and_sizes
from ondevice.data.kept import KeptFile, KeptSource
from ondevice.data.minhash import signatures
from ondevice.data.tokenizer_base import content_hash
from ondevice.errors import DataError, ResourceError
from ondevice.run.files import read_json, sha256_of, write_json
from ondevice.run.schema import DataConfig, SourceConfig

__all__ = [
    "RECORD_BYTES",
    "Advance",
    "FileList",
    "Part",
    "Scan",
    "full_disk",
    "list_content",
    "mask_digest",
    "scan_file_names",
    "scan_files",
    "scan_source",
    "utf8_length",
]

_UNREADABLE = "unreadable"
_VERSION = 2  # of the scan and of what the readers make of a file
_RECORD = np.dtype([("hash", "<u8"), ("chars", "<u4"), ("part", "<u2")])
RECORD_BYTES = _RECORD.itemsize
_BATCH = 1 << 14

_NEAR = ".near"

Advance = Callable[[int], None]
"""Called with the bytes of text that were read since the last call."""

Take = Callable[[list[Document], list[int]], object]
"""Takes the next documents and how many bytes of text each has."""


@dataclass(frozen=True)
class FileList:
    """The files of one source now. ``content`` changes when a reader could read something else."""

    source: SourceConfig
    name: str
    slot: str
    content: str
    bytes: int
    files: tuple[tuple[str, int, int, str], ...]  # relative path, size, mtime_ns, sha256


@dataclass(frozen=True)
class Part:
    """One name under which documents of a source are reported: the source itself, or a language of its code."""

    name: str
    language: str
    documents: int
    chars: int
    bytes: int


@dataclass(frozen=True)
class Scan:
    """Result of a scan; the documents' records are in ``records_file``, the first documents themselves in ``kept``,
    and their signatures in ``near_file``, where near copies are looked for."""

    content: str
    parts: tuple[Part, ...]
    problems: dict[str, Any]
    records_file: Path
    kept: KeptSource | None = None

    @property
    def bytes(self) -> int:
        return sum(part.bytes for part in self.parts)

    @property
    def near_file(self) -> Path:
        return self.records_file.with_suffix(_NEAR)

    def records(self, start: int, count: int) -> npt.NDArray[Any]:
        """Records (hash, chars, part) of the documents from number ``start`` on."""
        with open(self.records_file, "rb") as file:
            file.seek(_RECORD.itemsize * start)
            return np.frombuffer(file.read(_RECORD.itemsize * count), dtype=_RECORD)

    def batches(self, start: int = 0) -> Iterator[npt.NDArray[Any]]:
        """Records of all documents from number ``start`` on, some thousand at a time."""
        with open(self.records_file, "rb") as file:
            file.seek(_RECORD.itemsize * start)
            while data := file.read(_RECORD.itemsize * _BATCH):
                yield np.frombuffer(data, dtype=_RECORD)


def scan_files(content: str) -> tuple[str, ...]:
    """How the names of the files of a scan end, besides its record."""
    return f"-{content[:16]}.docs", f"-{content[:16]}{_NEAR}"


def scan_file_names(records: str) -> tuple[str, str]:
    """The files of a scan whose records file has this name."""
    return records, str(Path(records).with_suffix(_NEAR))


def utf8_length(text: str) -> int:
    """Bytes of a text in UTF-8. Raises UnicodeEncodeError for half a surrogate pair."""
    return len(text) if text.isascii() else len(text.encode())


def list_content(source: SourceConfig, data: DataConfig, *, base: Path, folder: Path) -> FileList:
    """The files of a source with their hashes; only files whose size or time changed are read.

    Raises DataError when a file vanishes meanwhile.
    """
    resolved = sources.resolve(source, base=base)
    aside = ("path", "weight", "name", "group", "score")
    meaning = {key: value for key, value in asdict(source).items() if key not in aside}
    for later in ("files", "score_field"):  # a key that came later counts only where it is given
        if not meaning[later]:
            del meaning[later]
    meaning |= {"v": _VERSION, "name": resolved.name, "format": resolved.format, "bad_utf8": data.bad_utf8}
    if rules := rules_of(data.clean):
        meaning["clean"] = rules
    if data.clean.near_duplicates:
        meaning["near"] = True
    slot = content_hash([meaning, str(resolved.path)])[:16]
    known = {
        (name, size, time): sha
        for name, size, time, sha in _known_files(folder / f"{slot}.json")
        if not sha.startswith(_UNREADABLE)  # it may be readable now, which size and time do not tell
    }
    files = []
    for entry in sources.list_files(source, base):
        key = (entry.relative, entry.size, entry.mtime_ns)
        files.append((*key, known.get(key) or _file_hash(entry.path)))
    content = content_hash([meaning, [[name, size, sha] for name, size, _, sha in files]])
    return FileList(source, resolved.name, slot, content, sum(size for _, size, _, _ in files), tuple(files))


def _known_files(path: Path) -> list[list[Any]]:
    record = _cached(path)
    return record["files"] if record else []


def _cached(path: Path) -> dict[str, Any] | None:
    """The record of an earlier scan, or None where there is none that this program reads."""
    try:
        record = read_json(path)
    except DataError:
        return None
    return record if isinstance(record, dict) and record.get("v") == _VERSION else None


def _file_hash(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError as error:
        # Whether a file that cannot be read is an error or is left out is decided by the readers.
        return f"{_UNREADABLE}: {error.strerror}"


def scan_source(
    listed: FileList, data: DataConfig, *, base: Path, folder: Path, kept_file: KeptFile, advance: Advance
) -> Scan:
    """The scan of a source, from the last build where its content is the same; else the documents that are read go to
    ``kept_file`` too. Raises DataError, ResourceError."""
    path = folder / f"{listed.slot}.json"
    records = folder / f"{listed.slot}-{listed.content[:16]}.docs"
    record = _cached(path)
    if record and record["content"] == listed.content and _intact(record, records):
        if [tuple(file) for file in record["files"]] != list(listed.files):
            write_json(path, {**record, "files": listed.files}, indent=None)
        return _from_record(record, records)
    problems = Problems()
    documents = sources.iter_documents(
        listed.source, base=base, bad_utf8=data.bad_utf8, problems=problems, clean=data.clean
    )
    with KeptSource(kept_file) as kept, _signing(records, wanted=bool(data.clean.near_duplicates)) as sign:
        parts = _write_records(records, documents, [kept.add, sign], advance)
    record = {
        "v": _VERSION,
        "content": listed.content,
        "files": listed.files,
        "parts": [asdict(part) for part in parts],
        "docs_sha256": sha256_of(records),
        **({"near_sha256": sha256_of(records.with_suffix(_NEAR))} if data.clean.near_duplicates else {}),
        "problems": problems.to_json(),
    }
    write_json(path, record, indent=None, durable=False)
    return _from_record(record, records, kept)


def _intact(record: dict[str, Any], records: Path) -> bool:
    try:
        near = record.get("near_sha256")
        is_near = near is None or sha256_of(records.with_suffix(_NEAR)) == near
        return is_near and sha256_of(records) == record.get("docs_sha256")
    except OSError:
        return False


def _from_record(record: dict[str, Any], records: Path, kept: KeptSource | None = None) -> Scan:
    parts = tuple(Part(**part) for part in record["parts"])
    return Scan(record["content"], parts, record["problems"], records, kept)


@contextmanager
def _signing(records: Path, *, wanted: bool) -> Iterator[Take]:
    """Writes the signatures of documents beside their records, where they are wanted; in full, or not at all."""
    if not wanted:
        yield lambda batch, sizes: None
        return
    path = records.with_suffix(_NEAR)
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with open(temporary, "wb") as file:
            yield lambda batch, _: file.write(signatures([document.text for document in batch]).tobytes())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_records(path: Path, documents: Iterator[Document], takers: list[Take], advance: Advance) -> list[Part]:
    """Writes one record a document, and hands the documents on; a file that is not complete never has its final
    name."""
    temporary = path.with_name(f".tmp-{path.name}")
    tally = _Tally()
    try:
        with open(temporary, "wb") as file:
            for batch in _batches(documents):
                records, sizes = tally.add(batch)
                for take in takers:
                    take(batch, sizes)
                file.write(records.tobytes())
                advance(sum(sizes))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return tally.parts()


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents in lists of at most 1,024 or about a megabyte."""
    batch: list[Document] = []
    chars = 0
    for document in documents:
        batch.append(document)
        chars += len(document.text)
        if len(batch) == 1024 or chars > 1 << 20:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


class _Tally:
    """Counts of the documents by the name they are reported under."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}
        self._languages: list[str] = []
        self._documents, self._chars, self._bytes = Counter[int](), Counter[int](), Counter[int]()

    def add(self, batch: list[Document]) -> tuple[npt.NDArray[Any], list[int]]:
        """Counts documents; returns their records and how many bytes of text each has."""
        hashes, sizes = hashes_and_sizes([document.text for document in batch])
        records = np.empty(len(batch), dtype=_RECORD)
        records["hash"] = hashes
        records["chars"] = [len(document.text) for document in batch]
        records["part"] = [self._part(document) for document in batch]
        for counter, weights in ((self._documents, None), (self._chars, records["chars"]), (self._bytes, sizes)):
            sums = np.bincount(records["part"], weights=weights).astype(np.int64)
            counter.update(dict(enumerate(sums.tolist())))
        return records, sizes

    def _part(self, document: Document) -> int:
        index = self._index.get(document.source)
        if index is None:
            index = self._index[document.source] = len(self._index)
            self._languages.append(document.language)
        return index

    def parts(self) -> list[Part]:
        names = enumerate(zip(self._index, self._languages, strict=True))
        return [
            Part(name, language, self._documents[i], self._chars[i], self._bytes[i]) for i, (name, language) in names
        ]


@contextmanager
def full_disk(folder: Path) -> Iterator[None]:
    """Turns "no space left" into a ResourceError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(f"{folder}: the disk is full; free some space and repeat the command.") from error
        raise


def mask_digest(mask: bytes) -> str:
    """Hash of which documents were dropped."""
    return hashlib.sha256(mask).hexdigest()
