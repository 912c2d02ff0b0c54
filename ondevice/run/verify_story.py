"""Re-checks the story of a run, and gives what it says to those who compare the rest of the run with it.

The status, each checkpoint and each later launch say how far the story went when they were written: a story that is
shorter was cut. What a file with a fault says is not believed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.errors import DataError, OndeviceError
from ondevice.run.audit import Audit, audit_file
from ondevice.run.directory import RunDir, lock_holder
from ondevice.run.files import open_regular, read_regular
from ondevice.run.finding import Finding, damage, note, ok
from ondevice.run.liveness import read_status
from ondevice.run.store import Store
from ondevice.run.telemetry import chain_of, first_chain, launch_files, launch_number, parse_line, read_file
from ondevice.run.verify_told import Told

__all__ = ["Story", "is_copy", "launch_records", "read_story"]

_LOCK_TEXT = 4096
_CHAIN = b',"chain":"'
_BEGIN, _TAIL = b'{"v":1,"t":', 4096  # what a line begins with; bytes of a tail that are looked at
_CANNOT_MEND = (
    "Telemetry is never rewritten; copy the file back from a backup, or leave it: training goes on all the same."
)


@dataclass
class Story:
    """``files``: by launch. ``status`` as it was before they were read. ``whole``: nothing is missing or changed, so
    what was ``told`` can be held against the run."""

    files: dict[int, Audit] = field(default_factory=dict)
    told: Told = field(default_factory=Told)
    findings: list[Finding] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    copied: bool = False
    whole: bool = True

    def place(self, position: Any) -> str:
        """``covered``: the story has it; ``ahead``: the story is shorter; ``foreign``: the story went otherwise there;
        ``unknown``: not a position, as of those who stated none."""
        launch, size = (position.get("launch"), position.get("bytes")) if isinstance(position, dict) else (None, None)
        if type(launch) is not int or type(size) is not int:
            return "unknown"
        audit = self.files.get(launch)
        if audit is None or audit.bytes < size:
            return "ahead"
        return "covered" if audit.covers(position) else "foreign"

    @property
    def end(self) -> dict[str, Any] | None:
        """The position of the end of the last file."""
        if not self.files:
            return None
        last = self.files[max(self.files)]
        return {"launch": last.launch, "bytes": last.bytes, "chain": last.chain}


def read_story(run: RunDir) -> Story:
    """Audits every telemetry file and folds what can be believed. Memory does not grow with the length of a story."""
    story = Story(status=read_status(run), copied=is_copy(run))  # before the story is read, which may grow meanwhile
    seen = story.status.get("telemetry")
    saved = [*_saved_positions(run)]
    paths = {launch_number(path): path for path in launch_files(run.telemetry)}
    firsts = {number: _first_record(path) for number, path in paths.items()}
    stated = [seen, *saved, *(record.get("previous_story") for record in firsts.values() if record)]
    for number, path in paths.items():
        _audit(
            run, story, path, [_size(position) for position in stated if _launch(position) == number], firsts[number]
        )
    for missing in sorted(set(range(1, max(paths, default=0))) - set(paths)):
        _fault(story, f"telemetry/{missing:04d}.jsonl", "missing, while the launch after it is there")
    firsts = _own(run, story, firsts, saved)
    _check_cuts(story, firsts)
    for position in [seen, *saved]:
        _check_end(run, story, position, seen)
    try:
        for path in paths.values() if story.whole else ():
            for record in read_file(path):
                story.told.fold(record)
    except DataError as error:
        _fault(story, "telemetry", str(error))
    if story.whole:
        _check_tail(run, story)
    return story


def is_copy(run: RunDir) -> bool:
    """Whether no trainer has lived here yet: a run that was carried from elsewhere has neither its status, nor some of
    its checkpoints."""
    if os.path.lexists(run.status):
        return False
    try:
        return not read_regular(run.lock, limit=_LOCK_TEXT).startswith(b"trainer ")
    except OSError:
        return True


def launch_records(run: RunDir) -> Iterator[dict[str, Any]]:
    """The ``launch`` records that are as they were written, newest first."""
    for path in reversed(launch_files(run.telemetry)):
        try:
            with open_regular(path) as file:
                line = file.readline()
            record = parse_line(line, where=str(path))
        except (OSError, OndeviceError):
            continue
        body, _, _ = line.rpartition(_CHAIN)
        if (
            record
            and record["kind"] == "launch"
            and chain_of(body, first_chain(launch_number(path))) == record.get("chain")
        ):
            yield record


def _first_record(path: Path) -> dict[str, Any] | None:
    try:
        return next(read_file(path), None)
    except OndeviceError:
        return None


def _saved_positions(run: RunDir) -> Iterator[Any]:
    store = Store(run.checkpoints)
    try:
        steps = store.steps()
    except OndeviceError:
        return
    for step in steps:
        try:
            yield store.peek(step).facts.get("telemetry")
        except OndeviceError:
            continue


def _launch(position: Any) -> Any:
    return position.get("launch") if isinstance(position, dict) else None


def _size(position: Mapping[str, Any]) -> int:
    size = position.get("bytes")
    return size if type(size) is int else -1


def _fault(story: Story, file: str, text: str) -> None:
    story.findings.append(damage(file, text, _CANNOT_MEND))
    story.whole = False


def _audit(run: RunDir, story: Story, path: Path, wanted: list[int], first: dict[str, Any] | None) -> None:
    name = path.relative_to(run.path).as_posix()
    try:
        audit = audit_file(path, wanted)
    except DataError as error:
        _fault(story, name, str(error).removeprefix(f"{path}: ").rstrip("."))
        return
    story.files[audit.launch] = audit
    if audit.lines == 0 and first and "chain" not in first and "identity" not in first:
        audit.faults.clear()
        story.findings.append(note(name, "written before lines were chained; it cannot be re-checked"))
        return
    for fault in audit.faults:
        _fault(story, name, "line " + fault.removeprefix(f"{path}:").rstrip("."))
    if not audit.faults:
        torn = f", {audit.torn} torn by a kill or a full disk" if audit.torn else ""
        story.findings.append((note if torn else ok)(name, f"{audit.lines} lines as they were written{torn}"))


def _own(
    run: RunDir, story: Story, firsts: dict[int, dict[str, Any] | None], saved: list[Any]
) -> dict[int, dict[str, Any] | None]:
    """The first records that are of this run. One of another run is a fault of its file, or, where no file is of the
    run that ``run.json`` names and the checkpoints agree with them, of ``run.json``."""
    ids = {number: _id(record.get("identity")) for number, record in firsts.items() if record}
    try:
        own = _id(run.read_identity())
    except OndeviceError:
        own = None
    known = [found for found in ids.values() if found is not None]
    if own not in known and (own is None or any(story.place(position) == "covered" for position in saved)):
        own = max(known, key=known.count, default=None)
    strangers = [number for number, found in ids.items() if found not in (own, None)]
    for number in strangers:
        _fault(story, f"telemetry/{number:04d}.jsonl", "was written by another run")
    return {number: record for number, record in firsts.items() if number not in strangers}


def _id(identity: Any) -> str | None:
    found = identity.get("id") if isinstance(identity, dict) else None
    return found if isinstance(found, str) else None


def _check_cuts(story: Story, firsts: dict[int, dict[str, Any] | None]) -> None:
    """Whether each file goes exactly as far as the launch after it found it to go."""
    for number, record in firsts.items():
        before = record.get("previous_story") if record else None
        if not isinstance(before, dict):
            continue
        place = story.place(before)
        if place in ("ahead", "foreign"):
            text = f"is not what launch {number} found: " + ("it was cut" if place == "ahead" else "it went otherwise")
            _fault(story, f"telemetry/{before['launch']:04d}.jsonl", text)
        elif place == "covered" and _has_grown(story.files[before["launch"]].path, before.get("size")):
            _fault(story, f"telemetry/{before['launch']:04d}.jsonl", f"has grown since launch {number} began")


def _has_grown(path: Path, size: Any) -> bool:
    """It may have become shorter by a torn line: a pack leaves that behind."""
    return type(size) is int and path.stat().st_size > size


def _check_tail(run: RunDir, story: Story) -> None:
    """After the last whole line there may be a torn one, but not after the last word of a launch."""
    for audit in story.files.values():
        with suppress(OSError), open_regular(audit.path) as file:
            file.seek(audit.bytes)
            tail = file.read(_TAIL).lstrip(b"\n")
            torn = tail.startswith(_BEGIN) or _BEGIN.startswith(tail) or not tail.strip(b"\0")
            last_word = bool(tail) and audit.launch == story.told.ended_launch == max(story.files)
            if (not torn or last_word) and lock_holder(run) is None:
                _fault(story, audit.path.relative_to(run.path).as_posix(), "ends with bytes that no trainer wrote")


def _check_end(run: RunDir, story: Story, position: Any, seen: Any) -> None:
    """A story shorter than the status or a checkpoint says was cut. But where it is there to its last word, or to what
    the status saw later, those who know more are of another run."""
    if story.place(position) != "ahead" or not story.whole or _ends_by_itself(run, position):
        return
    if position is not seen and story.place(seen) == "covered" and _order(seen) >= _order(position):
        return
    who = "status.json" if position is seen else "a checkpoint"
    text = f"cut: {who} knew {position['bytes']:,} bytes of it"
    _fault(story, f"telemetry/{position['launch']:04d}.jsonl", text)


def _order(position: dict[str, Any]) -> tuple[int, int]:
    return position["launch"], position["bytes"]


def _ends_by_itself(run: RunDir, position: dict[str, Any]) -> bool:
    files = launch_files(run.telemetry)
    last = launch_number(files[-1]) if files else 0
    if position["launch"] != last:
        return bool(position["launch"] < last)  # the launch after it found it as it is
    kind = None
    with suppress(DataError):
        for record in read_file(files[-1]):
            kind = record["kind"]
    return kind == "end"
