"""Which documents of a source are kept, and which side of the split each falls on.

`SourcePlan.pieces` is the second reading of a source: the same documents as in the scan, without the dropped ones,
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
from ondevice.data.kept import KeptDocument
from ondevice.data.split import (
    Split,
    cut_sections,
    cut_tail,
    validation_mask,
    validation_threshold,
)
from ondevice.errors import DataError
from ondevice.run.schema import DataConfig

__all__ = ["FEW_DOCUMENTS", "SPLITS", "Piece", "SourcePlan", "find_duplicates"]

SPLITS = ("train", "val")
FEW_DOCUMENTS = 100  # with fewer, a share of 5 % would be a handful of documents
_SECTIONS = 200
_MIN_SECTION_CHARS = 500
_HASHES_FOR_THRESHOLD = 1 << 17  # of more, a part by hash: the share is then exact to about a hundredth of itself


class Piece(NamedTuple):
    """Text that is followed by an end-of-text token. ``part`` is an index into the parts of the scan; ``ids`` are those
    of the text and the end-of-text id, where they are known already."""

    text: str
    part: int
    split: str
    origin: str
    ids: npt.NDArray[Any] | None = None


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


class SourcePlan:
    """The kept documents of one source and their split."""

    def __init__(self, listed: FileList, scan: Scan, dropped: bytes, *, data: DataConfig, split: Split, base: Path):
        self.listed = listed
        self.scan = scan
        self._dropped = np.frombuffer(dropped, dtype=np.uint8)  # one bit a document
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
        for batch, dropped in self._batches():
            yield batch[~dropped] if dropped.any() else batch

    def _batches(self) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]]:
        """The records of the scan, and which of them were dropped."""
        at = 0  # a multiple of eight, as the batches but the last are
        for batch in self.scan.batches():
            bits = self._dropped[at // 8 : (at + len(batch) + 7) // 8]
            at += len(batch)
            dropped = np.unpackbits(bits)[: len(batch)] if len(bits) else np.zeros(len(batch), dtype=np.uint8)
            yield batch, dropped.astype(np.bool_)

    def documents(self, part: int) -> int:
        """Documents kept."""
        return int(self._kept[0][part])

    def duplicates(self, part: int) -> int:
        """Documents dropped because an earlier one is equal."""
        return self.scan.parts[part].documents - self.documents(part)

    def pieces(self, problems: Problems | None = None) -> Iterator[Piece]:
        """Reads again what was not kept. Raises DataError when it is not what it was at the scan.

        Duplicates are noted in ``problems``.
        """
        position = [0] * len(self.scan.parts)
        whole = self._whole
        for (document, part, dropped), side in zip(self._documents(), self._sides(), strict=True):
            if not dropped:
                if whole[part]:
                    yield Piece(document.text, part, SPLITS[side], document.origin, document.ids)
                else:
                    yield from self._cut(document, part, position[part])
                    position[part] += len(document.text)
            elif problems is not None:
                problems.add(self.scan.parts[part].name, "duplicate_document", document.origin)

    def _sides(self) -> Iterator[bool]:
        """For every document of the scan whether it is for validation, by its hash alone."""
        by_hash = self._split.kind == "hash" and self._split.share > 0
        for batch in self.scan.batches():
            sides = np.zeros(len(batch), dtype=np.bool_)
            for part in np.unique(batch["part"]) if by_hash else ():
                chosen = batch["part"] == part
                sides[chosen] = validation_mask(batch["hash"][chosen], self._thresholds[part])
            yield from sides.tolist()

    def _documents(self) -> Iterator[tuple[KeptDocument, int, bool]]:
        """Every document with its part and whether it was dropped."""
        names = [part.name for part in self.scan.parts]
        kept = self.scan.kept.documents() if self.scan.kept else iter(())
        read = self._read()
        for batch, bits in self._batches():
            records = zip(batch["chars"].tolist(), batch["part"].tolist(), bits.tolist(), strict=True)
            for chars, part, dropped in records:
                if known := next(kept, None):
                    yield known, part, dropped
                    continue
                document = next(read, None)
                if document is None or len(document.text) != chars or document.source != names[part]:
                    raise self._changed()
                yield KeptDocument(document.text, document.origin, None), part, dropped
        if next(read, None) is not None:
            raise self._changed()

    def _read(self) -> Iterator[Document]:
        """The documents that were not kept; the source is not opened where all were."""
        kept = self.scan.kept.count if self.scan.kept else 0
        if kept < sum(part.documents for part in self.scan.parts):
            documents = sources.iter_documents(
                self.listed.source, base=self._base, bad_utf8=self._data.bad_utf8, problems=Problems()
            )
            yield from islice(documents, kept, None)

    def _changed(self) -> DataError:
        self.scan.records_file.unlink(missing_ok=True)  # so that repeating the command scans again
        return DataError(f"{self.listed.source.path}: changed while it was read; repeat the command.")

    @property
    def _whole(self) -> list[bool]:
        """For each part whether its documents stay whole."""
        if self._split.kind == "tail":
            return [False] * len(self.scan.parts)
        return [self._split.share == 0 or not few for few in self._few]

    def _cut(self, document: KeptDocument, part: int, start: int) -> Iterator[Piece]:
        """The pieces of a document that begins at character ``start`` of its part."""
        return self._tail(document, part, start) if self._split.kind == "tail" else self._sections(document, part)

    def _tail(self, document: KeptDocument, part: int, start: int) -> Iterator[Piece]:
        """The last characters of a part are for validation, wherever in a document they begin."""
        border = int(int(self._kept[1][part]) * (1 - self._split.share)) - start
        text = document.text
        # cut_tail cuts after int(len * (1 - share)) characters; half a character keeps rounding from moving the cut.
        head, tail = cut_tail(text, 1 - (border + 0.5) / len(text)) if 0 < border < len(text) else (text, "")
        if border <= 0:
            head, tail = "", text
        for piece, split in ((head, "train"), (tail, "val")):
            if piece:
                yield Piece(piece, part, split, document.origin)

    @cached_property
    def _few(self) -> list[bool]:
        """For each part whether it has so few documents that they are cut into sections."""
        return (self._kept[0] < FEW_DOCUMENTS).tolist()

    def _sections(self, document: KeptDocument, part: int) -> Iterator[Piece]:
        """Neighbouring sections on the same side stay one text, so that training sees no cut that is not there."""
        sections = cut_sections(document.text, self._section_chars(part))
        sides = validation_mask(document_hashes(sections), self._thresholds[part]).tolist()
        for side, run in groupby(zip(sides, sections, strict=True), key=lambda pair: bool(pair[0])):
            yield Piece("".join(text for _, text in run), part, SPLITS[side], document.origin)

    def _section_chars(self, part: int) -> int:
        return max(_MIN_SECTION_CHARS, int(self._kept[1][part]) // _SECTIONS)

    @cached_property
    def _thresholds(self) -> list[int]:
        """The validation threshold of each part."""
        few = {part for part in range(len(self.scan.parts)) if self._few[part]}
        sections: dict[int, list[npt.NDArray[np.uint64]]] = {part: [] for part in few}
        if few:
            for document, part, dropped in self._documents():
                if part in few and not dropped:
                    sections[part].append(document_hashes(cut_sections(document.text, self._section_chars(part))))
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


def _joined(parts: list[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    return np.concatenate([np.empty(0, dtype=np.uint64), *parts])
