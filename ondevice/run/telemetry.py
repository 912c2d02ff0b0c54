"""The story: one flat JSON object a line, one file a launch, appended and never rewritten.

Written by the trainer only. ``v, t (unix s), kind, step`` come first, then keys with units in their names; numbers are
finite or null. Readers ignore unknown kinds and keys, skip a torn line, and refuse a larger ``v``.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ondevice.errors import DataError
from ondevice.run.files import fsync_folder

__all__ = ["KINDS", "VERSION", "TelemetryWriter", "read_file", "read_records"]

VERSION = 1
KINDS = (
    "launch",
    "fit",
    "step",
    "eval",
    "sample",
    "reading",
    "order",
    "checkpoint",
    "part",
    "control",
    "note",
    "end",
)


class TelemetryWriter:
    """Appends records of one launch. Losing a line to a full disk is counted, never fatal."""

    def __init__(self, folder: Path, launch: int) -> None:
        self.path = folder / f"{launch:04d}.jsonl"
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        fsync_folder(folder)
        self._torn = False
        self.lost_lines = 0

    def write(self, kind: str, step: int, **fields: Any) -> dict[str, Any]:
        """Appends one record in one write and gives it back. Non-finite floats become null."""
        assert kind in KINDS, kind
        record = {"v": VERSION, "t": round(time.time(), 3), "kind": kind, "step": step, **_finite(fields)}
        line = json.dumps(record, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        if self._torn:
            line = b"\n" + line
        try:
            self._torn = os.write(self._fd, line) != len(line)
        except OSError:
            self._torn = True
        self.lost_lines += self._torn
        return record

    def sync(self) -> None:
        """Makes every record so far survive a power cut; called before a checkpoint commits."""
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_file(path: Path) -> Iterator[dict[str, Any]]:
    """Records of one launch; lines that are not whole JSON objects are skipped. Raises DataError for a newer ``v``."""
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
                continue
            if isinstance(version := record.get("v"), int) and version > VERSION:
                raise DataError(
                    f"{path}:{number}: telemetry version {version}, this program reads {VERSION}; update ondevice."
                )
            yield record


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """Records of all launches of a run, in order."""
    for path in sorted(folder.glob("[0-9]*.jsonl"), key=lambda item: int(item.stem)):
        yield from read_file(path)
