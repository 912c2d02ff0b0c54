"""Exact duplicates among any number of documents, in bounded memory.

Hashes live in two sorted arrays in memory; when the larger is full it becomes a sorted run on disk, of which memory
keeps only a Bloom filter and every 512th hash: 1.3 bytes a document, under 64 MB in all for 20 million.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ondevice.data.split import mix64
from ondevice.errors import ResourceError

__all__ = ["DocumentHashes", "document_hash", "document_hashes", "hashes_and_sizes"]

Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_SLICE_CHARS = 1 << 16  # encoding a long text at once would copy it
_FRESH = 1 << 15  # hashes merged at every call
_HELD = 1 << 18  # hashes in memory before a run is written: 2 MiB, and twice as much while they are sorted
_RUNS = 8  # runs before they are merged into one
_FENCE = 512  # hashes in one block of a run: 4 KiB
_MERGE_BLOCK = 1 << 15
_BITS_PER_HASH = 10  # with 4 probes about 1.2 % of new hashes cause a needless read
_PROBES = 4
_BATCH = 1 << 14
_LOOKUPS = 256  # blocks compared at once: 1 MiB
_BLOOM_SALT = 0xB100


def document_hash(text: str) -> int:
    """64-bit BLAKE2b of a text's UTF-8 bytes. Raises UnicodeEncodeError for half a surrogate pair."""
    return int.from_bytes(_digest(text)[0], "little")


def document_hashes(texts: Iterable[str]) -> Hashes:
    """`document_hash` of many texts."""
    return hashes_and_sizes(texts)[0]


def hashes_and_sizes(texts: Iterable[str]) -> tuple[Hashes, list[int]]:
    """`document_hash` of many texts, and how many bytes of UTF-8 each has."""
    found = [_digest(text) for text in texts]
    return np.frombuffer(b"".join([digest for digest, _ in found]), dtype="<u8"), [size for _, size in found]


def _digest(text: str) -> tuple[bytes, int]:
    if len(text) <= _SLICE_CHARS:
        data = text.encode()
        return hashlib.blake2b(data, digest_size=8).digest(), len(data)
    digest, size = hashlib.blake2b(digest_size=8), 0
    for start in range(0, len(text), _SLICE_CHARS):
        data = text[start : start + _SLICE_CHARS].encode()
        digest.update(data)
        size += len(data)
    return digest.digest(), size


class DocumentHashes:
    """Remembers which document hashes were seen. Scratch files live in ``folder`` until `close`.

    >>> with DocumentHashes(scratch) as hashes:
    ...     hashes.seen_batch(np.array([5, 7, 5], dtype=np.uint64))
    array([False, False,  True])

    Raises ResourceError when the disk is full.
    """

    def __init__(self, folder: Path, *, held: int = _HELD) -> None:
        self._folder = folder
        self._held_limit = held
        self._fresh_limit = min(_FRESH, held)
        self._fresh = _empty()
        self._held = _empty()
        self._runs: list[_Run] = []

    def __enter__(self) -> DocumentHashes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        """Different hashes seen."""
        return len(self._fresh) + len(self._held) + sum(run.size for run in self._runs)

    def close(self) -> None:
        """Deletes the scratch files and forgets everything; harmless when repeated."""
        for run in self._runs:
            run.close()
        self._runs = []
        self._fresh = self._held = _empty()

    def seen_batch(self, hashes: Hashes) -> Mask:
        """Whether each hash was seen before, in an earlier call or earlier in this one; remembers them all.

        Larger batches are faster: about 1,000 or more documents a call.
        """
        hashes = np.ascontiguousarray(hashes, dtype=np.uint64)
        seen = np.empty(len(hashes), dtype=np.bool_)
        for start in range(0, len(hashes), _BATCH):
            seen[start : start + _BATCH] = self._seen(hashes[start : start + _BATCH])
        return seen

    def _seen(self, hashes: Hashes) -> Mask:
        unique, first = np.unique(hashes, return_index=True)
        known = self._known(unique)
        seen = np.ones(len(hashes), dtype=np.bool_)
        seen[first] = known
        self._remember(unique[~known])
        return seen

    def _known(self, unique: Hashes) -> Mask:
        """Membership of sorted hashes in everything remembered."""
        known = _contains(self._fresh, unique) | _contains(self._held, unique)
        for run in self._runs:
            rest = np.flatnonzero(~known)
            known[rest] = run.contains(unique[rest])
        return known

    def _remember(self, new: Hashes) -> None:
        self._fresh = _merged([self._fresh, new])
        if len(self._fresh) < self._fresh_limit:
            return
        self._held, self._fresh = _merged([self._held, self._fresh]), _empty()
        if len(self._held) >= self._held_limit:
            self._spill()

    def _spill(self) -> None:
        self._runs.append(_Run(self._folder, iter([self._held]), len(self._held)))
        self._held = _empty()
        if len(self._runs) >= _RUNS:
            self._merge_runs()

    def _merge_runs(self) -> None:
        size = sum(run.size for run in self._runs)
        for run in self._runs:
            run.forget()  # the filters of the old runs and of the new one never exist together
        merged = _Run(self._folder, _merge([run.blocks() for run in self._runs]), size)
        for run in self._runs:
            run.close()
        self._runs = [merged]


class _Run:
    """A sorted file of different hashes, with its Bloom filter and the first hash of every block in memory."""

    def __init__(self, folder: Path, parts: Iterator[Hashes], size: int) -> None:
        self.size = size
        self._bloom = _Bloom(size)
        self._fences = np.empty((size + _FENCE - 1) // _FENCE, dtype=np.uint64)
        self._file = _scratch_file(folder)
        try:
            self._write(parts)
        except OSError as error:
            self._file.close()
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise ResourceError(f"{folder}: the disk is full; free some space and repeat the command.") from error
            raise

    def _write(self, parts: Iterator[Hashes]) -> None:
        position = 0
        for part in parts:
            self._bloom.add(part)
            offsets = np.arange(-position % _FENCE, len(part), _FENCE)
            first = -(-position // _FENCE)
            self._fences[first : first + len(offsets)] = part[offsets]
            self._file.write(part.data)
            position += len(part)
        self._file.flush()

    def blocks(self) -> Iterator[Hashes]:
        """The whole run, in order."""
        for start in range(0, self.size * 8, _MERGE_BLOCK * 8):
            yield np.frombuffer(os.pread(self._file.fileno(), _MERGE_BLOCK * 8, start), dtype=np.uint64)

    def contains(self, hashes: Hashes) -> Mask:
        """Membership of sorted hashes."""
        found = self._bloom.may_contain(hashes)
        candidates = np.flatnonzero(found)
        for start in range(0, len(candidates), _LOOKUPS):
            part = candidates[start : start + _LOOKUPS]
            found[part] = self._look_up(hashes[part])
        return found

    def _look_up(self, hashes: Hashes) -> Mask:
        """Membership of a few hashes, by reading the block that would hold each."""
        blocks = np.searchsorted(self._fences, hashes, side="right") - 1
        table = np.zeros((len(hashes), _FENCE), dtype=np.uint64)
        lengths = np.zeros(len(hashes), dtype=np.int64)
        descriptor = self._file.fileno()
        for row, block in enumerate(blocks.tolist()):
            if block >= 0:
                values = np.frombuffer(os.pread(descriptor, _FENCE * 8, block * _FENCE * 8), dtype=np.uint64)
                table[row, : len(values)] = values
                lengths[row] = len(values)
        equal = table == hashes[:, None]
        # The last block is short and the table is padded with zeros, which must not look like the hash 0.
        equal &= np.arange(_FENCE) < lengths[:, None]
        return cast(Mask, equal.any(axis=1))

    def forget(self) -> None:
        """Drops what is in memory; only `blocks` and `close` may follow."""
        self._bloom = _Bloom(0)
        self._fences = _empty()

    def close(self) -> None:
        self._file.close()


class _Bloom:
    """Says "surely not" or "perhaps" about a set of hashes, in `_BITS_PER_HASH` bits each."""

    def __init__(self, size: int) -> None:
        self._bytes = np.zeros(max(8, size * _BITS_PER_HASH // 8), dtype=np.uint8)

    def add(self, hashes: Hashes) -> None:
        for start in range(0, len(hashes), _BATCH):
            for byte, bit in self._places(hashes[start : start + _BATCH]):
                np.bitwise_or.at(self._bytes, byte, bit)

    def may_contain(self, hashes: Hashes) -> Mask:
        result = np.ones(len(hashes), dtype=np.bool_)
        for byte, bit in self._places(hashes):
            result &= (self._bytes[byte] & bit) != 0
        return result

    def _places(self, hashes: Hashes) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]]:
        """Byte index and bit mask of each probe. Two halves of one hash make all probes."""
        mixed = mix64(hashes, _BLOOM_SALT)
        low, step = mixed & np.uint64(0xFFFFFFFF), (mixed >> np.uint64(32)) | np.uint64(1)
        bits = np.uint64(len(self._bytes) * 8)
        for probe in range(_PROBES):
            place = (((low + np.uint64(probe) * step) & np.uint64(0xFFFFFFFF)) * bits) >> np.uint64(32)
            bit = np.left_shift(np.uint8(1), (place & np.uint64(7)).astype(np.uint8))
            yield (place >> np.uint64(3)).astype(np.int64), bit


def _empty() -> Hashes:
    return np.empty(0, dtype=np.uint64)


def _contains(sorted_values: Hashes, hashes: Hashes) -> Mask:
    """Membership in a sorted array."""
    if not len(sorted_values):
        return np.zeros(len(hashes), dtype=np.bool_)
    places = np.searchsorted(sorted_values, hashes)
    places[places == len(sorted_values)] = 0
    return cast(Mask, sorted_values[places] == hashes)


def _merged(parts: list[Hashes]) -> Hashes:
    """Sorted union of sorted, disjoint arrays. A stable sort merges what is in order already."""
    values = np.concatenate(parts)
    values.sort(kind="stable")
    return values


def _merge(runs: list[Iterator[Hashes]]) -> Iterator[Hashes]:
    """The sorted, disjoint streams as one. Holds one block of each."""
    heads = [(block, run) for run in runs if (block := next(run, None)) is not None]
    while heads:
        # Every stream has shown its values up to this bound, so they can be put in order now.
        bound = min(block[-1] for block, _ in heads)
        cuts = [int(np.searchsorted(block, bound, side="right")) for block, _ in heads]
        yield _merged([block[:cut] for (block, _), cut in zip(heads, cuts, strict=True)])
        rests = [(block[cut:], run) for (block, run), cut in zip(heads, cuts, strict=True)]
        refilled = [(block if len(block) else next(run, None), run) for block, run in rests]
        heads = [(block, run) for block, run in refilled if block is not None]


def _scratch_file(folder: Path) -> BinaryIO:
    """A file that vanishes when it is closed or the process dies."""
    folder.mkdir(parents=True, exist_ok=True)
    return cast(BinaryIO, tempfile.TemporaryFile(dir=folder, prefix=".hashes-"))
