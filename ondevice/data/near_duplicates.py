"""Which documents are nearly an earlier one, judged by their signatures, in about 50 bytes of memory a document.

Signatures lie on disk, one row a document. Rows that agree in all places of a band are candidates, a few neighbours of
which are compared as a whole. A document is dropped when an earlier one that stays is at least as like it as was asked.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ondevice.data.minhash import PLACES, likeness
from ondevice.data.split import mix64

__all__ = ["ROW_BYTES", "band_places", "find_near_duplicates"]

ROW_BYTES = 2 * PLACES
_MISSED = 0.01  # chance that no band of two documents agrees which are just as like as was asked
_ROWS = 1 << 13  # read at once: 2 MiB
_NEIGHBOURS = 8  # earlier candidates of a band that a document is compared with, besides the first
_COMPARED = 1 << 12

Mask = npt.NDArray[np.bool_]
Pairs = npt.NDArray[np.uint64]
"""Numbers of two documents in one: the later in the high half, the earlier in the low one."""


def band_places(threshold: float) -> int:
    """How many places a band has: the most with which a pair at the threshold is a candidate all but surely."""
    fitting = [n for n in range(1, PLACES + 1) if (1 - threshold**n) ** (PLACES // n) <= _MISSED]
    return max(fitting, default=1)


def find_near_duplicates(files: Sequence[Path], dropped: Mask, *, threshold: float, scratch: Path) -> Mask:
    """For every document, in the order of the files, whether it is nearly an earlier one that stays.

    ``dropped`` says which are left out already; they count for nothing. Raises OSError when the disk is full.
    """
    places = band_places(threshold)
    alive = np.flatnonzero(~dropped).astype(np.uint32)
    with tempfile.TemporaryFile(dir=scratch, prefix=".tmp-bands-") as file:
        keys = _Bands(cast(BinaryIO, file), files, places, len(dropped))
        rows = _Rows(files)
        known: Pairs = np.empty(0, dtype=np.uint64)
        for band in range(PLACES // places):
            for pairs in _candidates(keys.of(band)[alive], alive):
                new = np.setdiff1d(pairs, known)
                known = np.union1d(known, new[rows.likeness(new) >= threshold])
    return _later_ones(known, len(dropped))


class _Bands:
    """A 32-bit key of every document for every band, in a scratch file, band after band."""

    def __init__(self, file: BinaryIO, files: Sequence[Path], places: int, documents: int) -> None:
        self._descriptor = file.fileno()
        self._documents = documents
        number = 0
        for rows in _blocks(files):
            for band in range(PLACES // places):
                keys = _keys(rows[:, band * places : (band + 1) * places], band)
                os.pwrite(self._descriptor, keys.tobytes(), 4 * (band * documents + number))
            number += len(rows)

    def of(self, band: int) -> npt.NDArray[np.uint32]:
        data = os.pread(self._descriptor, 4 * self._documents, 4 * band * self._documents)
        return np.frombuffer(data, dtype=np.uint32)


def _blocks(files: Sequence[Path]) -> Iterator[npt.NDArray[np.uint16]]:
    for path in files:
        with open(path, "rb") as file:
            while data := file.read(ROW_BYTES * _ROWS):
                yield np.frombuffer(data, dtype="<u2").reshape(-1, PLACES)


def _keys(columns: npt.NDArray[np.uint16], band: int) -> npt.NDArray[np.uint32]:
    key = np.full(len(columns), band, dtype=np.uint64)
    for place in range(columns.shape[1]):
        key = mix64(key ^ columns[:, place].astype(np.uint64), 7)
    return (key >> np.uint64(32)).astype(np.uint32)


def _candidates(keys: npt.NDArray[np.uint32], numbers: npt.NDArray[np.uint32]) -> Iterator[Pairs]:
    """Pairs of documents with one key: each with the first of its key and with the last few before it."""
    order = (keys.astype(np.uint64) << np.uint64(32)) | numbers
    order.sort()
    low = np.uint64(0xFFFFFFFF)
    same = np.diff(order >> np.uint64(32), prepend=np.uint64(0)) == 0
    same[:1] = False
    if not same.any():
        return
    firsts = np.maximum.accumulate(np.where(same, 0, np.arange(len(order))))
    yield _pairs(order[firsts[same]] & low, order[same] & low)
    for lag in range(1, _NEIGHBOURS + 1):
        near = np.flatnonzero(np.arange(len(order)) - firsts > lag)  # the first is compared already
        if not len(near):
            return
        yield _pairs(order[near - lag] & low, order[near] & low)


def _pairs(earlier: Pairs, later: Pairs) -> Pairs:
    return cast(Pairs, (later << np.uint64(32)) | earlier)


class _Rows:
    """Signatures by the number of their document."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        sizes = [path.stat().st_size // ROW_BYTES for path in files]
        self._ends = np.cumsum(sizes)
        self._starts = self._ends - sizes

    def likeness(self, pairs: Pairs) -> npt.NDArray[np.float64]:
        """How like the documents of each pair are."""
        found = [self._some(pairs[start : start + _COMPARED]) for start in range(0, len(pairs), _COMPARED)]
        return np.concatenate([np.empty(0), *found])

    def _some(self, pairs: Pairs) -> npt.NDArray[np.float64]:
        later, earlier = pairs >> np.uint64(32), pairs & np.uint64(0xFFFFFFFF)
        numbers, places = np.unique(np.concatenate([later, earlier]), return_inverse=True)
        rows = self._read(numbers.astype(np.int64))
        return likeness(rows[places[: len(later)]], rows[places[len(later) :]])

    def _read(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint16]:
        owners = np.searchsorted(self._ends, numbers, side="right")
        data: list[bytes] = []
        for owner in np.unique(owners).tolist():
            places = (numbers[owners == owner] - self._starts[owner]).tolist()
            with open(self._files[owner], "rb") as file:
                data += [os.pread(file.fileno(), ROW_BYTES, place * ROW_BYTES) for place in places]
        return np.frombuffer(b"".join(data), dtype="<u2").reshape(-1, PLACES)


def _later_ones(pairs: Pairs, documents: int) -> Mask:
    """Which documents have an earlier one that stays. The pairs are sorted by the later."""
    dropped = np.zeros(documents, dtype=np.bool_)
    for later, earlier in zip((pairs >> np.uint64(32)).tolist(), (pairs & np.uint64(0xFFFFFFFF)).tolist(), strict=True):
        if not dropped[earlier]:
            dropped[later] = True
    return dropped
