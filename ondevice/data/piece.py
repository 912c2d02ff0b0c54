"""Pieces: text that came later, beside a dataset whose chunks stay as they are.

What each source was read from, and which documents it has, is told by the record beside its chunks. Building a piece is
the business of `ondevice.data.build`, its manifest that of `ondevice.data.build_manifest`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ondevice.data.build_scan import RECORD_BYTES, Part, Scan, scan_file_names
from ondevice.data.build_tokens import RECORD
from ondevice.data.dataset import Dataset
from ondevice.errors import DataError
from ondevice.run.files import read_json

__all__ = ["kept_scans", "known_files", "scan_names"]


def _keys(dataset: Dataset, source: str = "") -> list[str]:
    """The folders of chunks, in the order of the manifest; of one source, the languages of its code included."""
    return list(
        dict.fromkeys(
            chunk["file"].split("/")[1]
            for chunk in dataset.manifest["chunks"]
            if not source or chunk["source"] == source or chunk["source"].startswith(f"{source}.")
        )
    )


def _record(folder: Path, key: str) -> dict[str, Any]:
    """What was read into the chunks of a folder; nothing where that is not here, as in a copy of a dataset."""
    try:
        record = read_json(folder / "chunks" / key / RECORD)
    except DataError:
        return {}
    return record if isinstance(record, dict) else {}


def known_files(dataset: Dataset, source: str) -> dict[str, tuple[int, int, str]] | None:
    """The files that a source was read from: size in bytes, mtime in ns and SHA-256 by relative path.

    None where nobody knows: in a copy from elsewhere, or a dataset of a version that did not note them.
    """
    found: dict[str, tuple[int, int, str]] = {}
    for key in _keys(dataset, source):
        files = _record(dataset.folder, key).get("files")
        if files is None:
            return None
        found |= {name: (size, mtime_ns, sha256) for name, size, mtime_ns, sha256 in files}
    return found


def scan_names(folder: Path, key: str) -> tuple[str, ...]:
    """The files in ``scan/`` that tell which documents the chunks of a folder were made of."""
    name = _record(folder, key).get("scan")
    return scan_file_names(name) if isinstance(name, str) and "/" not in name else ()


def kept_scans(dataset: Dataset) -> list[Scan]:
    """The documents that a dataset was made of, as far as they are still known, so that new copies are recognised."""
    found = []
    for key in _keys(dataset):
        for name in scan_names(dataset.folder, key)[:1]:
            path = dataset.folder / "scan" / name
            if path.is_file():
                documents = path.stat().st_size // RECORD_BYTES
                found.append(Scan("", (Part("", "", documents, 0, 0),), {}, path))
    return found
