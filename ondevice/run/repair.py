"""Mends what can be derived from the rest of a run; the caller holds its lock.

Nothing valid is deleted and telemetry is never rewritten. What a file was is known from hashes (``papers`` in
``run.json``) and from the story; a candidate that does not match them is not used. Repeating a repair does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ondevice.errors import OndeviceError
from ondevice.run.directory import LAYOUT, RunDir
from ondevice.run.files import fsync_folder, remove_temporary
from ondevice.run.migrate import migrate
from ondevice.run.repair_checkpoints import mend_checkpoints
from ondevice.run.repair_papers import mend_identity, mend_papers
from ondevice.run.repair_present import mend_limits, mend_pins, mend_schedule, mend_status
from ondevice.run.store import Store
from ondevice.run.verify_present import litter
from ondevice.run.verify_story import is_copy, read_story

__all__ = ["Before", "Repair", "repair"]


@dataclass(frozen=True)
class Repair:
    """``file`` is a path inside the run, or empty; ``text`` says what was done to it."""

    file: str
    text: str


@dataclass(frozen=True)
class Before:
    """What taking the lock changes: files that killed writers left, and whether the run was carried from elsewhere."""

    left: tuple[Path, ...]
    copied: bool

    @classmethod
    def of(cls, run: RunDir) -> Before:
        return cls(tuple(litter(run)), is_copy(run))


def repair(run: RunDir, before: Before, *, dry_run: bool = False) -> list[Repair]:
    """What was mended, in order; with ``dry_run`` what would be. ``before`` is from before the lock was taken.

    Raises ResourceError on a full disk, DataError where the system will not let a file be written.
    """
    return [Repair(file, text) for file, text in _mend(run, before, dry_run)]


def _mend(run: RunDir, before: Before, dry: bool) -> Iterator[tuple[str, str]]:
    """Each step may rely on what the one before it mended."""
    yield from mend_identity(run, dry)
    yield from _bring_up(run, dry)
    yield from mend_papers(run, dry)
    story = replace(read_story(run), copied=before.copied)
    yield from mend_limits(run, story, dry)
    yield from mend_pins(run, story, dry)
    yield from mend_status(run, story, dry)
    yield from mend_schedule(run, story, dry)
    yield from mend_checkpoints(run, story, dry)
    yield from _tidy(run, before.left, dry)


def _bring_up(run: RunDir, dry: bool) -> Iterator[tuple[str, str]]:
    try:
        layout = run.read_identity()["layout"]
        if layout < LAYOUT and dry:
            yield "run.json", f"brought from layout {layout} to layout {LAYOUT}"
        elif layout < LAYOUT:
            yield from (("run.json", sentence.rstrip(".")) for sentence in migrate(run))
    except OndeviceError:
        return  # the check that follows says it


def _tidy(run: RunDir, left: tuple[Path, ...], dry: bool) -> Iterator[tuple[str, str]]:
    """Finishes what an interrupted save, prune or lightening left, and removes files of writers that were killed."""
    store = Store(run.checkpoints)
    if not dry:
        for folder in {path.parent for path in left}:
            remove_temporary(folder)
            with suppress(OSError):
                fsync_folder(folder)
        store.sweep()
    for path in left:
        if dry or not path.exists():
            yield path.relative_to(run.path).as_posix(), "removed: a writer that was killed left it"
