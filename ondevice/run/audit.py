"""Re-checks the story: is each telemetry file exactly what its launch wrote, line by line?

Every line carries a ``chain``, a hash over itself and the chain before it (`ondevice.run.telemetry`). A changed,
missing, added or moved line breaks it. A line that a kill or a full disk tore is no fault: the line after it is chained
to the one before it. Where a file ends is not in the file: checkpoints, the next launch and the status each say how far
the story went when they were written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.errors import DataError
from ondevice.run.files import open_regular
from ondevice.run.telemetry import chain_of, first_chain, launch_files, launch_number, parse_line

__all__ = ["Audit", "audit_file", "end_of_story", "story_end"]

_END = re.compile(rb',"chain":"([0-9a-f]{16})"\}\n')
_END_BYTES = 29
_LONGEST = 1 << 24  # bytes of a line; what is longer is none of ours


@dataclass
class Audit:
    """What one file holds. ``faults`` are sentences; ``torn`` counts lines that were never completed.

    ``bytes`` and ``chain`` are those at the end of the last whole line; ``chains`` those at the wanted sizes.
    """

    path: Path
    launch: int
    chain: str
    lines: int = 0
    torn: int = 0
    bytes: int = 0
    faults: list[str] = field(default_factory=list)
    chains: dict[int, str] = field(default_factory=dict)

    def covers(self, position: Mapping[str, Any]) -> bool:
        """Whether the file holds, unchanged, what a `TelemetryWriter.position` says was written; needs its size to
        have been among the wanted."""
        return self.chains.get(position.get("bytes", -1)) == position.get("chain")


@dataclass(frozen=True)
class _Line:
    """A line that does not follow from what was accepted; ``claim`` is the chain it states, if it is whole."""

    number: int
    claim: str | None
    complete: bool


def audit_file(path: Path, wanted: Iterable[int] = ()) -> Audit:
    """Re-checks one file in bounded memory. ``wanted``: sizes at which the chain is noted.

    Raises DataError when it cannot be read.
    """
    reader = _Reader(path, frozenset(wanted))
    try:
        with open_regular(path) as file:
            while line := file.readline(_LONGEST):
                reader.take(line)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error
    return reader.end()


class _Reader:
    """Follows the chain through a file. ``_rejected`` holds the first and the last line since the chain broke."""

    def __init__(self, path: Path, wanted: frozenset[int]) -> None:
        launch = launch_number(path)
        start = first_chain(launch)
        self._audit = Audit(path, launch, start, chains={0: start})
        self._wanted = wanted
        self._before = start  # the chain before the last accepted line
        self._rejected: list[_Line] = []
        self._number = self._size = 0
        self._unchained: list[int] = []  # the first whole record without a chain, and how many there are

    def take(self, line: bytes) -> None:
        audit = self._audit
        self._number, self._size = self._number + 1, self._size + len(line)
        found = _END.fullmatch(line[-_END_BYTES:])
        claim = found[1].decode() if found else None
        if claim is None or not self._follows(line[:-_END_BYTES], claim):
            if claim is None and line.endswith(b"\n") and self._is_record(line):
                first, count = self._unchained or (self._number, 0)
                self._unchained = [first, count + 1]
            audit.torn += claim is None
            self._rejected = [*self._rejected[:1], _Line(self._number, claim, line.endswith(b"\n"))]
            return
        self._rejected = []
        self._before, audit.chain = audit.chain, claim
        audit.lines, audit.bytes = audit.lines + 1, self._size
        if self._size in self._wanted:
            audit.chains[self._size] = claim

    def _is_record(self, line: bytes) -> bool:
        return parse_line(line, where=f"{self._audit.path}:{self._number}") is not None

    def _follows(self, body: bytes, claim: str) -> bool:
        """Whether a whole line is chained to an accepted line, or to a rejected one, which then was changed."""
        audit, rejected = self._audit, self._rejected
        if chain_of(body, audit.chain) == claim:
            foreign = next((line for line in rejected if line.claim is not None), None)
            if foreign:
                audit.faults.append(f"{audit.path}:{foreign.number}: this line was not written by the trainer.")
            return True
        if not rejected and chain_of(body, self._before) == claim:
            audit.torn += 1  # the line before lacked only its line break when the disk was full
            return True
        stated = rejected[-1].claim if rejected else None
        if stated is None or chain_of(body, stated) != claim:
            return False
        audit.faults.append(
            f"{audit.path}:{rejected[0].number}: changed since it was written, or lines are missing here."
        )
        return True

    def end(self) -> Audit:
        rejected = self._rejected
        if self._unchained:
            first, count = self._unchained
            these = "this line was" if count == 1 else f"{count:,} lines from here on were"
            self._audit.faults.append(f"{self._audit.path}:{first}: {these} not written by the trainer.")
        if rejected and (len(rejected) > 1 or rejected[0].complete):
            where = f"{self._audit.path}:{rejected[0].number}"
            self._audit.faults.append(f"{where}: from here on the lines are not what was written.")
        return self._audit


def story_end(path: Path) -> dict[str, Any]:
    """The `TelemetryWriter.position` that a file's writer would give. Raises DataError."""
    audit = audit_file(path)
    return {"launch": audit.launch, "bytes": audit.bytes, "chain": audit.chain}


def end_of_story(folder: Path) -> dict[str, Any] | None:
    """How far the newest telemetry file of a run goes; None before the first launch. Raises DataError."""
    files = launch_files(folder)
    return story_end(files[-1]) if files else None
