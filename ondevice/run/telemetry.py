"""The story: one flat JSON object a line, one file a launch, appended and never rewritten.

Written by the trainer only. ``v, t (unix s), kind, step`` come first, then keys with units in their names; numbers are
finite or null. On a simulated device ``sim_t`` is the time there; ``t`` stays that of the wall. Readers ignore unknown
kinds and keys, skip a torn line, and refuse a larger ``v``. The last key, ``chain``, ties each line to all before it:
``ondevice.run.audit`` re-checks it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ondevice.errors import DataError
from ondevice.run.files import fsync_folder, json_bytes, make_folder, write_all, write_error

__all__ = [
    "KINDS",
    "VERSION",
    "TelemetryWriter",
    "as_number",
    "as_numbers",
    "chain_of",
    "chained",
    "first_chain",
    "launch_files",
    "launch_number",
    "parse_line",
    "read_end",
    "read_file",
    "read_records",
]

VERSION = 1
_LAST_BYTES = 1 << 18
_FILE = re.compile(r"[0-9]{1,18}\.jsonl")
KINDS = (
    "launch",
    "fit",
    "step",
    "eval",
    "advice",
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

    def __init__(self, folder: Path, launch: int, *, sim_clock: Callable[[], float] | None = None) -> None:
        """Begins the file of a launch; ``sim_clock``: unix seconds of a simulated device, for `sim_t` of each record.

        Raises ResourceError or DataError when it cannot be written."""
        self.path = folder / f"{launch:04d}.jsonl"
        try:
            make_folder(folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o600)
            fsync_folder(folder)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._sim_clock = sim_clock
        self._torn = False
        self._chain = first_chain(launch)
        self._position = {"launch": launch, "bytes": 0, "chain": self._chain}
        self.lost_lines = 0

    @property
    def position(self) -> dict[str, Any]:
        """How far the story goes: ``launch``, and ``bytes`` and ``chain`` at the end of its last whole line."""
        return dict(self._position)

    def write(self, kind: str, step: int, **fields: Any) -> dict[str, Any]:
        """Appends one record in one write and gives it back. Non-finite floats become null."""
        assert kind in KINDS, kind
        assert not fields.keys() & {"v", "t"}, "these keys are the writer's"
        record = {"v": VERSION, "t": round(time.time(), 3), "kind": kind, "step": step}
        if self._sim_clock is not None:
            record["sim_t"] = round(self._sim_clock(), 3)
        record |= _finite(fields)
        line, chain = chained(record, self._chain)
        try:
            # After a torn line, a line break first: the torn one is skipped by readers, this one is whole.
            write_all(self._fd, b"\n" + line if self._torn else line)
        except OSError:
            self._torn = True
            self.lost_lines += 1
            return record
        self._torn, self._chain = False, chain
        with suppress(OSError):  # the position before stays true
            self._position |= {"bytes": os.fstat(self._fd).st_size, "chain": chain}
        return record

    def sync(self) -> None:
        """Makes every record so far survive a power cut; called before a checkpoint commits.

        Raises ResourceError on a full disk, DataError on another failure.
        """
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise write_error(self.path, error) from error

    def close(self) -> None:
        """What must survive was synced before: a complaint of the system now tells nothing new."""
        with suppress(OSError):
            os.close(self._fd)


def first_chain(launch: int) -> str:
    """What the first line of a launch is chained to, so that files cannot trade places unnoticed."""
    return f"{launch:016d}"


def chained(record: dict[str, Any], previous: str) -> tuple[bytes, str]:
    """A record as its line, and the chain of that line: 64 bits of SHA-256 over the chain before and the line."""
    body = json_bytes(record)[:-2]  # without the closing brace and the line break
    chain = chain_of(body, previous)
    return body + b',"chain":"' + chain.encode() + b'"}\n', chain


def chain_of(body: bytes, previous: str) -> str:
    """The chain of a line whose bytes before ``,"chain"`` are ``body``."""
    return hashlib.sha256(previous.encode() + body).hexdigest()[:16]


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def as_number(value: Any) -> float | None:
    """A number as it is; None for anything else, for infinities and for numbers no float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None


def as_numbers(raw: Any) -> dict[str, float]:
    """Those values of a table that are numbers, by name; empty for anything else."""
    found = {name: as_number(value) for name, value in raw.items()} if isinstance(raw, dict) else {}
    return {name: value for name, value in found.items() if value is not None}


def launch_files(folder: Path) -> list[Path]:
    """The telemetry files of a run in order of their launches; other files in the folder are not ours."""
    try:
        found = [path for path in folder.iterdir() if _FILE.fullmatch(path.name)]
    except OSError:
        return []
    return sorted(found, key=launch_number)


def launch_number(path: Path) -> int:
    """The launch a telemetry file belongs to."""
    return int(path.stem)


def read_file(path: Path) -> Iterator[dict[str, Any]]:
    """Records of one launch; lines that are not whole records are skipped.

    Raises DataError for a newer ``v`` and for a file that cannot be read.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                record = parse_line(line, where=f"{path}:{number}")
                if record is not None:
                    yield record
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def read_end(path: Path) -> Iterator[dict[str, Any]]:
    """The last records of one launch, for whoever looks for its last word; raises as `read_file` does."""
    try:
        with open(path, "rb") as file:
            start = max(0, file.seek(0, os.SEEK_END) - _LAST_BYTES)
            file.seek(start)
            lines = file.read().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    for number, line in enumerate(lines, start=1):
        if start and number == 1:
            continue  # it may be the end of a line
        record = parse_line(line, where=str(path) if start else f"{path}:{number}")
        if record is not None:
            yield record


def parse_line(line: bytes, *, where: str) -> dict[str, Any] | None:
    """The record in a line, None where there is no whole one. Raises DataError for a newer ``v``."""
    try:
        record = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    version = as_number(record.get("v"))
    if version is not None and version > VERSION:
        raise DataError(f"{where}: telemetry version {version}, this program reads {VERSION}; update ondevice.")
    if as_number(record.get("t")) is None or type(record.get("step")) is not int or version is None:
        return None
    return record


def read_records(folder: Path) -> Iterator[dict[str, Any]]:
    """Records of all launches of a run, in order."""
    for path in launch_files(folder):
        yield from read_file(path)
