"""Re-checks the parts of a chain: ``schedule.json`` against the fold of the story, and the chain of hashes over parts.

The schedule is written after each record that changes it, so a kill may leave it a few records behind: that is no
damage. What is neither now nor a moment ago the fold of the story is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir
from ondevice.run.files import read_sealed
from ondevice.run.finding import Finding, damage, note, ok
from ondevice.run.recipe import Recipe
from ondevice.run.schedule import FILE, SCHEDULE_VERSION, Schedule, chained_hash, schedule_of
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.run.verify_story import Story

__all__ = ["folded", "schedule_fault", "verify_schedule"]

_KINDS = ("launch", "fit", "checkpoint", "part", "end")
_BEHIND = 4  # records that a kill may keep from the file


def verify_schedule(run: RunDir, story: Story, recipe: Recipe | None) -> Iterator[Finding]:
    """Findings for a run with parts; none for others."""
    if recipe is None or not recipe.data.parts:
        return
    if fault := schedule_fault(run, story, recipe):
        yield damage(FILE, fault, f"`ondevice doctor {run.name}` restores it.")
    elif os.path.lexists(run.path / FILE):
        yield ok(FILE, "sealed, and as the story tells")
    if not story.whole:
        yield note("", "the chain of parts was not re-checked: the story is not whole")
        return
    faults = [*_chain_faults(run, recipe)]
    yield from (damage("telemetry", fault) for fault in faults)
    done = folded(run, recipe).done
    if done and not faults:
        yield ok("", f"{done} parts done, each chained to the one before")


def folded(run: RunDir, recipe: Recipe) -> Schedule:
    """The schedule that the story makes."""
    return schedule_of(recipe, read_records(run.telemetry))


def schedule_fault(run: RunDir, story: Story, recipe: Recipe) -> str:
    """What is wrong with ``schedule.json``; empty where nothing is."""
    path = run.path / FILE
    if not os.path.lexists(path):
        return "gone, though the trainer wrote one" if story.told.has_steps and not story.copied else ""
    try:
        found = read_sealed(path, version=SCHEDULE_VERSION)
    except OndeviceError as error:
        return str(error).removeprefix(f"{path}: ").rstrip(".")
    if not story.whole or found.get("revision", 0) < len(recipe.revises) + 1:
        return ""  # an older revision is from before a crash; the next launch writes it
    records = [record for record in read_records(run.telemetry) if record["kind"] in _KINDS]
    lately = (records[: len(records) - behind] for behind in range(min(_BEHIND, len(records)) + 1))
    if any(_plain(schedule_of(recipe, told)) == found for told in lately):
        return ""
    return "not the schedule that the recipe and the story make"


def _plain(schedule: Schedule) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(schedule.to_json()))
    return plain


def _chain_faults(run: RunDir, recipe: Recipe) -> Iterator[str]:
    """Parts whose hash does not follow from the part before, or whose checkpoint is not the one that is here."""
    told = {record["name"]: record for record in read_records(run.telemetry) if _is_done(record)}
    schedule, store, before = folded(run, recipe), Store(run.checkpoints), ""
    last: dict[str, Any] | None = None
    for part in schedule.parts:
        record = told.get(part.name)
        if part.state != "done" or record is None:
            last = None if part.planned_steps else last
            continue
        if chained_hash(before, record) != record.get("chained"):
            yield f"part {part.name}: not chained to the part before it"
        if last is not None and record.get("checkpoint_in") != last:
            yield f"part {part.name}: began with another checkpoint than the part before it ended with"
        before, last = str(record.get("chained")), record.get("checkpoint_out")
        if last is not None and _differs(store, last):
            yield f"part {part.name}: ended with another checkpoint than that of step {last.get('step')} which is here"


def _is_done(record: dict[str, Any]) -> bool:
    return record["kind"] == "part" and record.get("outcome") == "done" and isinstance(record.get("name"), str)


def _differs(store: Store, told: Any) -> bool:
    """Whether a checkpoint is here and not the one that was told; a damaged one is found by others."""
    try:
        return bool(store.peek(told["step"]).sha256 != told["sha256"])
    except (OndeviceError, KeyError, TypeError):
        return False
