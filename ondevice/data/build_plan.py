"""Which documents of a source are kept, and which side of the split each falls on.

`SourcePlan.stretches` is the second reading of a source: the same documents as in the scan, without the dropped ones,
cut where the split asks for it. A pure function of the scan, the dropped documents and the split.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ondevice.data import sources
from ondevice.data.build_scan import FileList, Scan
from ondevice.data.documents import Document, Problems
from ondevice.data.duplicates import DocumentHashes, document_hashes
from ondevice.data.kept import KeptBlock, KeptSource
from ondevice.data.near_duplicates import find_near_duplicates
from ondevice.data.split import (
    Split,
    cut_sections,
    cut_tail,
    validation_mask,
    validation_threshold,
)
from ondevice.errors import DataError
from ondevice.run.schema import DataConfig

__all__ = [
    "FEW_DOCUMENTS",
    "SPLITS",
    "Dropped",
    "Encoded",
    "Piece",
    "SourcePlan",
    "find_duplicates",
    "find_near",
]

SPLITS = ("train", "val")
FEW_DOCUMENTS = 100  # with fewer, a share of 5 % would be a handful of documents
_SECTIONS = 200
_MIN_SECTION_CHARS = 500
_HASHES_FOR_THRESHOLD = 1 << 17  # of more, a part by hash: the share is then exact to about a hundredth of itself


class Piece(NamedTuple):
    """Text that is followed by an end-of-text token. ``part`` is an index into the parts of the scan, ``score`` that of
    its document, where there is one."""

    text: str
    part: int
    split: str
    origin: str
    score: float | None = None


class Encoded(NamedTuple):
    """Whole documents of one part and split of which only the ids are known: all in a row, and how many each has with
    its end-of-text id. ``bytes`` is the UTF-8 of their texts together."""

    part: int
    split: str
    bytes: int
    ids: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]


class _Span(NamedTuple):
    """Documents (text, or None where only ids are known, origin, and score), the block they are in, the number of the
    first, their records, and which of them were dropped."""

    documents: Iterator[tuple[str | None, str, float | None]]
    block: KeptBlock | None
    first: int
    rows: npt.NDArray[Any]
    dropped: npt.NDArray[np.bool_]


def find_duplicates(scans: list[Scan], scratch: Path, *, deduplicate: bool) -> list[bytes]:
    """For each scan one bit a document: whether it is a copy of an earlier one, in any source.

    Earlier sources win. Bounded memory but for the bits themselves.
    """
    if not deduplicate:
        return [b"" for _ in scans]
    with DocumentHashes(scratch) as hashes:
        return [_duplicate_bits(scan, hashes) for scan in scans]


def _duplicate_bits(scan: Scan, hashes: DocumentHashes) -> bytes:
    # The batches of a scan but the last hold a multiple of eight records, so that their bits can be joined.
    return b"".join(np.packbits(hashes.seen_batch(batch["hash"])).tobytes() for batch in scan.batches())


def find_near(scans: list[Scan], dropped: list[bytes], scratch: Path, *, threshold: float | None) -> list[bytes]:
    """For each scan one bit a document: whether it is nearly an earlier one, in any source, and not dropped already."""
    if threshold is None:
        return [b"" for _ in scans]
    counts = [sum(part.documents for part in scan.parts) for scan in scans]
    bits = [_unpacked(each, 0, count) for each, count in zip(dropped, counts, strict=True)]
    files = [scan.near_file for scan in scans]
    near = find_near_duplicates(files, np.concatenate(bits), threshold=threshold, scratch=scratch)
    return [np.packbits(part).tobytes() for part in np.split(near, np.cumsum(counts)[:-1])]


class Dropped(NamedTuple):
    """One bit a document each, or nothing: exact copies, and what is nearly a copy."""

    copies: bytes
    near: bytes

    @property
    def all(self) -> bytes:
        """Both in one."""
        if not self.near or not self.copies:
            return self.near or self.copies
        both = np.frombuffer(self.copies, dtype=np.uint8) | np.frombuffer(self.near, dtype=np.uint8)
        return both.tobytes()


def _unpacked(bits: bytes, start: int, count: int) -> npt.NDArray[np.bool_]:
    """Some of the bits; all 0 where there are none."""
    if not bits:
        return np.zeros(count, dtype=np.bool_)
    part = np.frombuffer(bits, dtype=np.uint8)[start // 8 : (start + count + 7) // 8]
    return np.unpackbits(part)[start % 8 :][:count].astype(np.bool_)


class SourcePlan:
    """The kept documents of one source and their split."""

    def __init__(self, listed: FileList, scan: Scan, dropped: Dropped, *, data: DataConfig, split: Split, base: Path):
        self.listed = listed
        self.scan = scan
        self.dropped = dropped
        self._dropped = dropped.all
        self._data = data
        self._split = split
        self._base = base

    @cached_property
    def _kept(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Documents and characters kept, by part."""
        parts = len(self.scan.parts)
        documents, chars = np.zeros(parts, dtype=np.int64), np.zeros(parts, dtype=np.int64)
        for batch in self._kept_batches():
            documents += np.bincount(batch["part"], minlength=parts)
            chars += np.bincount(batch["part"], weights=batch["chars"], minlength=parts).astype(np.int64)
        return documents, chars

    def _kept_batches(self) -> Iterator[npt.NDArray[Any]]:
        for batch, dropped in self._batches(0):
            yield batch[~dropped] if dropped.any() else batch

    def _batches(self, start: int) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]:
        """The records of the scan from number ``start`` on, and which of them were dropped."""
        for batch in self.scan.batches(start):
            yield batch, _unpacked(self._dropped, start, len(batch))
            start += len(batch)

    def documents(self, part: int) -> int:
        """Documents kept."""
        return int(self._kept[0][part])

    def duplicates(self, part: int) -> int:
        """Documents dropped because an earlier one is equal."""
        return self.scan.parts[part].documents - self.documents(part)

    def pieces(self) -> Iterator[Piece]:
        """The text of all kept documents; complete only where none was encoded while the source was scanned."""
        return (stretch for stretch in self.stretches(Problems()) if isinstance(stretch, Piece))

    def stretches(self, problems: Problems) -> Iterator[Piece | Encoded]:
        """Every kept document, those of a part and split in order; reads again what is not on disk.

        Duplicates are noted in ``problems``. Raises DataError when the source is not what it was at the scan.
        """
        position = [0] * len(self.scan.parts)
        whole = self._whole
        for documents, block, first, rows, dropped in self._spans():
            sides = self._sides(rows)
            judged = zip(documents, rows["part"].tolist(), dropped.tolist(), sides.tolist(), strict=True)
            for number, ((text, origin, score), part, is_dropped, side) in enumerate(judged, first):
                if is_dropped:
                    reason = "near_duplicate" if self._is_near(number) else "duplicate_document"
                    problems.add(self.scan.parts[part].name, reason, origin)
                elif text is None:
                    continue
                elif whole[part]:
                    yield Piece(text, part, SPLITS[side], origin, score)
                else:
                    for piece in self._cut(text, origin, part, position[part]):
                        yield piece._replace(score=score)
                    position[part] += len(text)
            if block:
                yield from _encoded(block, rows["part"], ~dropped, sides)

    def _is_near(self, number: int) -> bool:
        return bool(self.dropped.near) and bool(self.dropped.near[number // 8] >> (7 - number % 8) & 1)

    def _sides(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """For every record whether its document is for validation, by its hash alone."""
        sides = np.zeros(len(rows), dtype=np.bool_)
        if self._split.kind == "hash" and self._split.share > 0:
            for part in np.unique(rows["part"]):
                chosen = rows["part"] == part
                sides[chosen] = validation_mask(rows["hash"][chosen], self._thresholds[part])
        return sides

    def _spans(self) -> Iterator[_Span]:
        """All documents with their records: first what is on disk, then what is read again."""
        at = 0
        for block in self._on_disk.blocks() if self._on_disk else ():
            rows = self.scan.records(at, block.documents)
            documents = ((text, origin, None) for text, origin in block.texts_and_origins())
            yield _Span(documents, block, at, rows, _unpacked(self._dropped, at, len(rows)))
            at += len(rows)
        read = self._read(at)
        for rows, dropped in self._batches(at):
            yield _Span(self._checked(read, rows), None, at, rows, dropped)
            at += len(rows)
        if next(read, None) is not None:
            raise self._changed()

    @cached_property
    def _on_disk(self) -> KeptSource | None:
        """What the scan kept, unless a part must be cut whose texts are not there, or scores are wanted, which are only
        in the source."""
        kept = None if self.listed.source.score_field else self.scan.kept
        cut = {part.name for part, whole in zip(self.scan.parts, self._whole, strict=True) if not whole}
        return None if kept is None or kept.encoded & cut else kept

    def _read(self, start: int) -> Iterator[Document]:
        """The documents from number ``start`` on; the source is not opened where there is none."""
        if start < sum(part.documents for part in self.scan.parts):
            data = self._data
            documents = sources.iter_documents(
                self.listed.source, base=self._base, bad_utf8=data.bad_utf8, problems=Problems(), clean=data.clean
            )
            yield from islice(documents, start, None)

    def _checked(
        self, read: Iterator[Document], rows: npt.NDArray[Any]
    ) -> Iterator[tuple[str | None, str, float | None]]:
        """Text, origin and score of the next documents, which are those of the records."""
        for chars, part in zip(rows["chars"].tolist(), rows["part"].tolist(), strict=True):
            document = next(read, None)
            if document is None or len(document.text) != chars or document.source != self.scan.parts[part].name:
                raise self._changed()
            yield document.text, document.origin, document.score

    def _changed(self) -> DataError:
        self.scan.records_file.unlink(missing_ok=True)  # so that repeating the command scans again
        return DataError(f"{self.listed.source.path}: changed while it was read; repeat the command.")

    @property
    def _whole(self) -> list[bool]:
        """For each part whether its documents stay whole."""
        if self._split.kind == "tail":
            return [False] * len(self.scan.parts)
        return [self._split.share == 0 or not few for few in self._few]

    def _cut(self, text: str, origin: str, part: int, start: int) -> Iterator[Piece]:
        """The pieces of a document that begins at character ``start`` of its part."""
        if self._split.kind == "tail":
            return self._tail(text, origin, part, start)
        return self._sections(text, origin, part)

    def _tail(self, text: str, origin: str, part: int, start: int) -> Iterator[Piece]:
        """The last characters of a part are for validation, wherever in a document they begin."""
        border = int(int(self._kept[1][part]) * (1 - self._split.share)) - start
        # cut_tail cuts after int(len * (1 - share)) characters; half a character keeps rounding from moving the cut.
        head, tail = cut_tail(text, 1 - (border + 0.5) / len(text)) if 0 < border < len(text) else (text, "")
        if border <= 0:
            head, tail = "", text
        for piece, split in ((head, "train"), (tail, "val")):
            if piece:
                yield Piece(piece, part, split, origin)

    @cached_property
    def _few(self) -> list[bool]:
        """For each part whether it has so few documents that they are cut into sections."""
        return (self._kept[0] < FEW_DOCUMENTS).tolist()

    def _sections(self, text: str, origin: str, part: int) -> Iterator[Piece]:
        """Neighbouring sections on the same side stay one text, so that training sees no cut that is not there."""
        sections = cut_sections(text, self._section_chars(part))
        sides = validation_mask(document_hashes(sections), self._thresholds[part]).tolist()
        for side, run in groupby(zip(sides, sections, strict=True), key=lambda pair: bool(pair[0])):
            yield Piece("".join(section for _, section in run), part, SPLITS[side], origin)

    def _section_chars(self, part: int) -> int:
        return max(_MIN_SECTION_CHARS, int(self._kept[1][part]) // _SECTIONS)

    @cached_property
    def _thresholds(self) -> list[int]:
        """The validation threshold of each part."""
        few = {part for part in range(len(self.scan.parts)) if self._few[part]}
        sections: dict[int, list[npt.NDArray[np.uint64]]] = {part: [] for part in few}
        for documents, _, _, rows, dropped in self._spans() if few else ():
            judged = zip(documents, rows["part"].tolist(), dropped.tolist(), strict=True)
            for (text, *_), part, is_dropped in judged:
                if part in few and not is_dropped and text is not None:
                    sections[part].append(document_hashes(cut_sections(text, self._section_chars(part))))
        share = self._split.share
        return [
            validation_threshold(_joined(sections[part]), share) if part in few else self._threshold(part)
            for part in range(len(self.scan.parts))
        ]

    def _threshold(self, part: int) -> int:
        if not self._data.deduplicate:
            # One bound for all sources: a document that is in two of them must fall on the same side in both.
            return int(self._split.share * 2.0**64)
        thin = np.uint64((1 << max(0, (self.documents(part) // _HASHES_FOR_THRESHOLD).bit_length())) - 1)
        hashes = [batch["hash"][batch["part"] == part] for batch in self._kept_batches()]
        return validation_threshold(_joined([h[(h & thin) == 0] for h in hashes]), self._split.share)


def _encoded(
    block: KeptBlock, parts: npt.NDArray[Any], wanted: npt.NDArray[np.bool_], sides: npt.NDArray[np.bool_]
) -> Iterator[Encoded]:
    """The encoded documents of a block that are wanted, those of each part and split together."""
    wanted = wanted & (block.lengths > 0)
    ends = np.cumsum(block.lengths, dtype=np.int64)
    keys = np.where(wanted, parts.astype(np.int64) * 2 + sides, -1)
    for key in np.unique(keys[wanted]).tolist():
        chosen = keys == key
        # Where runs of neighbours begin and end: a slice of each copies less than a mask over all ids.
        edges = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
        starts, stops = (ends - block.lengths)[edges[::2]], ends[edges[1::2] - 1]
        ids = np.concatenate([block.ids[a:b] for a, b in zip(starts.tolist(), stops.tolist(), strict=True)])
        size = int(block.bytes[chosen].sum(dtype=np.int64))
        yield Encoded(key // 2, SPLITS[key % 2], size, ids, block.lengths[chosen].astype(np.int64))


def _joined(parts: list[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    return np.concatenate([np.empty(0, dtype=np.uint64), *parts])
