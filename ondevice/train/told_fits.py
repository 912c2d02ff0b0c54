"""Which fit a run had when, as its story tells it: ``launch`` and ``fit`` records.

Read by a launch, which goes on with the last one, and by a replay, which must change it where the run did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import CheckpointError
from ondevice.run.directory import RunDir
from ondevice.run.recipe import Fit
from ondevice.run.telemetry import launch_files, launch_number, read_file, read_records

__all__ = ["Told", "fits_by_step", "last_told"]


@dataclass(frozen=True, kw_only=True)
class Told:
    """A fit in force from ``step`` on. ``full_threads``: what its threads were before a live run gave some up."""

    fit: Fit
    step: int
    full_threads: int | None = None


def last_told(run: RunDir, *, since: int) -> Told | None:
    """The last one that a launch numbered ``since`` or later told of."""
    for path in reversed(launch_files(run.telemetry)):
        if launch_number(path) < since:
            return None
        *_, told = [None, *(told for told, _ in _told(read_file(path), path))]
        if told is not None:
            return told
    return None


def fits_by_step(run: RunDir) -> dict[int, Fit]:
    """The step from which each fit was in force, in order; steps that a kill took back do not count."""
    found: dict[int, Fit] = {}
    for told, is_launch in _told(read_records(run.telemetry), run.telemetry):
        if is_launch:  # steps beyond are done again
            found = {step: fit for step, fit in found.items() if step < told.step}
        found[told.step] = told.fit
    return found


def _told(records: Iterable[dict[str, Any]], where: Path) -> Iterator[tuple[Told, bool]]:
    """Each with whether a launch began with it. A line changed by hand is passed over: an older one will do."""
    for record in records:
        raw = {"launch": record.get("fit"), "fit": record.get("new")}.get(record["kind"])
        step, full = record.get("step"), record.get("full_threads")
        if raw is None or type(step) is not int:
            continue
        try:
            fit = Fit.from_json(raw, where=str(where))
        except CheckpointError:
            continue
        yield Told(fit=fit, step=step, full_threads=full if type(full) is int else None), record["kind"] == "launch"
