"""A finished dataset: the manifest ``dataset.json`` and what it promises.

Written by the build, last and in one instant; read by training, evaluation and reports. Knows nothing of order.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.data.build_plan import SPLITS
from ondevice.data.chunks import verify_chunk
from ondevice.data.documents import Problems
from ondevice.data.examples_rows import ExampleFacts, ExampleRows
from ondevice.data.inventory import check_totals
from ondevice.data.scores import read_scores, score_files
from ondevice.data.stream import OpenMaps, TokenStream
from ondevice.data.tokenizer import Tokenizer, load_tokenizer
from ondevice.data.tokenizer_base import content_hash
from ondevice.errors import DataError, UsageError, nearest
from ondevice.run.files import json_bytes, read_json

__all__ = [
    "MANIFEST",
    "MANIFEST_VERSION",
    "USE_LOCK",
    "Dataset",
    "SourceEntry",
    "earlier_manifest",
    "manifest_path",
    "seal_manifest",
    "tokens_hash",
]

MANIFEST = "dataset.json"
MANIFEST_VERSION = 1
_SEAL = "seal"  # hash over all that comes before it; manifests had none at first
_KEYS = {
    "v",
    "id",
    "created",
    "sha256",
    "inputs",
    "tokenizer",
    "split",
    "sources",
    "chunks",
    "problems",
    "totals",
    "examples",
}
USE_LOCK = "use.lock"


@dataclass(frozen=True, kw_only=True)
class SourceEntry:
    """Counts of one source. Tokens include the end-of-text tokens and overlaps of items, bytes do not.

    ``train_documents`` and ``val_documents`` count what ends with end-of-text: documents, pieces of those, or items.
    ``cuts`` counts by kind of border where documents were cut into items; ``scores`` names the file with the scores of
    the training items, ``score`` is that of them all.
    """

    name: str
    language: str
    weight: float
    documents: int
    duplicates: int
    dropped: int
    train_documents: int
    val_documents: int
    train_tokens: int
    val_tokens: int
    train_bytes: int
    val_bytes: int
    group: str = ""
    score: float | None = None
    cuts: dict[str, int] = field(default_factory=dict)
    overlap_tokens: int = 0
    scores: dict[str, Any] | None = None


class Dataset:
    """Opened with `Dataset.open`; keeps its chunks from being deleted by a later build as long as it lives.

    >>> dataset = Dataset.open(folder)
    >>> dataset.stream("notes", "val").read(0, 3)
    array([72, 105, 256], dtype=uint16)
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.id: str = manifest["id"]
        self.sha256: str = manifest["sha256"]
        self.vocab_size: int = manifest["tokenizer"]["vocab_size"]
        self.sources = tuple(SourceEntry(**entry) for entry in manifest["sources"])
        self._streams: dict[tuple[str, str], TokenStream] = {}
        self._maps = OpenMaps()
        self.packed: dict[object, object] = {}
        """Plans of packed examples that were made, kept by `ondevice.data.packed`."""

    @classmethod
    def open(cls, folder: Path, *, sha256: str | None = None) -> Dataset:
        """Reads the manifest and checks totals, presence and size of every chunk (not their bytes).

        ``sha256`` asks for the dataset of an earlier build, where the newest is another and it was kept.
        Raises DataError: no dataset here, a newer format, a chunk that is missing or has another size.
        """
        if not (folder / MANIFEST).exists():
            raise DataError(f"{folder}: no dataset here; make one with `ondevice data build`.")
        lock = _Lock(folder / USE_LOCK)  # before the manifest is read, so that what it names cannot vanish
        try:
            dataset = cls(folder, _read_manifest(manifest_path(folder, sha256)))
        except BaseException:
            lock.close()
            raise
        weakref.finalize(dataset, lock.close)
        return dataset

    @cached_property
    def problems(self) -> Problems:
        """What was left out of the sources, with examples."""
        return Problems.from_json(self.manifest["problems"])

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens. Raises DataError, DeviceError."""
        return self._tokenizer

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        expected = self.manifest["tokenizer"]
        tokenizer = load_tokenizer(self.folder / expected["folder"])
        if tokenizer.sha256 != expected["sha256"]:
            raise DataError(
                f"{self.folder / expected['folder']}: not the tokenizer that made this dataset; "
                "`ondevice data build` makes it again."
            )
        return tokenizer

    def stream(self, source: str, split: str) -> TokenStream:
        """All tokens of a source and split (``train`` or ``val``). Raises UsageError for an unknown source."""
        names = [entry.name for entry in self.sources]
        if source not in names:
            raise UsageError(f"{self.folder}: no source '{source}'{nearest(source, names)}.")
        if split not in SPLITS:
            raise UsageError(f"no split '{split}': it is train or val.")
        return self._stream(source, split)

    def _stream(self, source: str, split: str) -> TokenStream:
        if (source, split) not in self._streams:
            chunks = [
                (self.folder / chunk["file"], chunk["tokens"], chunk["sha256"])
                for chunk in self.manifest["chunks"]
                if chunk["source"] == source and chunk["split"] == split
            ]
            self._streams[source, split] = TokenStream(chunks, vocab_size=self.vocab_size, maps=self._maps)
        return self._streams[source, split]

    @property
    def examples(self) -> ExampleFacts | None:
        """What kind of examples it holds; None where it holds plain text."""
        facts = self.manifest.get("examples")
        return None if facts is None else ExampleFacts(**facts)

    def example_rows(self, source: str, split: str) -> ExampleRows:
        """The examples of a source and split. Raises UsageError for an unknown source, DataError for damage."""
        tokens = self.stream(source, split)
        learned, lengths = (self._stream(source, f"{split}_{name}") for name in ("learned", "lengths"))
        return ExampleRows(tokens, learned, lengths)

    def scores(self, source: str) -> npt.NDArray[np.float64] | None:
        """The score of each training item (what ends with end-of-text) of a source; None where it has none.

        Raises DataError for a damaged file.
        """
        entry = next(entry for entry in self.sources if entry.name == source)
        return read_scores(self.folder, entry.scores) if entry.scores else None

    def text_hashes(self) -> dict[str, str]:
        """For each source a hash of its training tokens, which other sources do not change."""
        chunks: dict[str, list[str]] = {entry.name: [] for entry in self.sources}
        for chunk in self.manifest["chunks"]:
            if chunk["split"] == "train":
                chunks[chunk["source"]].append(chunk["sha256"])
        return {name: content_hash(hashes) for name, hashes in chunks.items()}

    def unigram_counts(self, source: str | None = None) -> npt.NDArray[np.int64]:
        """How often each id occurs in the training tokens of a source, or of all; shape [vocab_size]."""
        counts = np.zeros(self.vocab_size, dtype=np.int64)
        for name in [entry.name for entry in self.sources] if source is None else [source]:
            for block in self.stream(name, "train").blocks():
                counts += np.bincount(block, minlength=self.vocab_size)
        return counts

    def verify(self) -> None:
        """Compares every byte of every chunk and of the tokenizer with its hash. Raises DataError naming the file."""
        self.tokenizer()
        for chunk in self.manifest["chunks"]:
            path = self.folder / chunk["file"]
            if verify_chunk(path).sha256 != chunk["sha256"]:
                raise DataError(
                    f"{path}: this chunk is not the one of this dataset; `ondevice data build` makes it again."
                )
        for entry in score_files(self.manifest["sources"]):
            read_scores(self.folder, entry)


def tokens_hash(tokenizer_sha256: str, sources: Iterable[str], chunks: Iterable[dict[str, Any]]) -> str:
    """Hash of what determines the token streams: tokenizer, names and order of sources, contents of chunks."""
    body = [[chunk["source"], chunk["split"], chunk["tokens"], chunk["sha256"]] for chunk in chunks]
    return content_hash([tokenizer_sha256, list(sources), body])


def earlier_manifest(sha256: str) -> str:
    """Name of the manifest of an earlier build that a run still needs."""
    return f"dataset-{sha256[:16]}.json"


def manifest_path(folder: Path, sha256: str | None) -> Path:
    """The manifest of the dataset of that hash if an earlier build left one, else the newest."""
    earlier = folder / earlier_manifest(sha256) if sha256 else None
    return earlier if earlier is not None and earlier.exists() else folder / MANIFEST


def _read_manifest(path: Path) -> dict[str, Any]:
    manifest = read_json(path)
    version = manifest.get("v") if isinstance(manifest, dict) else None
    if isinstance(version, int) and version > MANIFEST_VERSION:
        raise DataError(f"{path}: dataset format {version}, this program reads {MANIFEST_VERSION}; update ondevice.")
    try:
        _check(path, manifest)
        [SourceEntry(**entry) for entry in manifest["sources"]]
        _check_seal(path, manifest)
        return {**manifest}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not a dataset's manifest ({error}); `ondevice data build` makes it again.") from error


def _check(path: Path, manifest: dict[str, Any]) -> None:
    folder = path.parent
    names = [entry["name"] for entry in manifest["sources"]]
    if tokens_hash(manifest["tokenizer"]["sha256"], names, manifest["chunks"]) != manifest["sha256"]:
        raise DataError(f"{path}: was changed after it was written; `ondevice data build` makes it again.")
    check_totals(manifest, where=str(path))
    for chunk in manifest["chunks"]:
        file = folder / chunk["file"]
        try:
            size = file.stat().st_size
        except OSError:
            raise DataError(f"{file}: this chunk is missing; `ondevice data build` makes it again.") from None
        if size != chunk["size"]:
            raise DataError(f"{file}: this chunk has the wrong size; `ondevice data build` makes it again.")


def seal_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with a hash over all of it as last key, so that any changed bit is noticed."""
    return {**manifest, _SEAL: content_hash(manifest)}


def _check_seal(path: Path, manifest: dict[str, Any]) -> None:
    sealed = seal_manifest({key: value for key, value in manifest.items() if key != _SEAL})
    if manifest.keys() - _KEYS - {_SEAL} or (_SEAL in manifest and path.read_bytes() != json_bytes(sealed, indent=1)):
        raise DataError(f"{path}: was changed after it was written; `ondevice data build` makes it again.")


class _Lock:
    """A shared lock that a build respects before it deletes what an older manifest names."""

    def __init__(self, path: Path) -> None:
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):  # a read-only folder has no builds, and some filesystems no locks
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
