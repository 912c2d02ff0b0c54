"""What a run that was unpacked tells of its arrival, so that nobody takes the journey for a death or a loss.

A run that was packed while it trained has a last launch without an end, and one packed with ``--latest`` misses the
older checkpoints that its story tells of. Both are told here, in the words of the trainer, before the run is put in its
place; so is its present tense, which stayed behind.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.audit import audit_file, end_of_story
from ondevice.run.config import LIMITS_VERSION
from ondevice.run.directory import RunDir
from ondevice.run.files import read_sealed, write_all, write_sealed
from ondevice.run.liveness import write_status
from ondevice.run.repair_present import told_status
from ondevice.run.schedule import write_schedule
from ondevice.run.store import PINS_VERSION, Store
from ondevice.run.telemetry import VERSION, chained, launch_files
from ondevice.run.verify_papers import readable_recipe
from ondevice.run.verify_schedule import folded
from ondevice.run.verify_story import read_story

__all__ = ["tell_arrival"]

_WHY = "moved to this device by `ondevice unpack`"


def tell_arrival(run: RunDir) -> None:
    """Ends the last launch of a staged run where it has no end, tells which checkpoints stayed behind, and writes the
    status, and the schedule of a chain. A damaged story stays as it is. Raises OSError, ResourceError, DataError."""
    story, store = read_story(run), Store(run.checkpoints)
    if not story.whole or not story.files:
        return
    here = store.steps()
    gone = sorted(set(story.told.checkpoints) - set(here))
    records = [_checkpoint(store, here[-1], gone)] if gone and here else []
    if records or story.told.ended is None:
        _append(run, [*records, {"kind": "end", "step": story.told.step, **_end(story.told.ended)}])
        _keep_newer(run, story.end)
    story, recipe = read_story(run), readable_recipe(run)
    write_status(run, told_status(run, story, story.told.hold), durable=True)
    if recipe is not None and recipe.data.parts:
        write_schedule(run.path, folded(run, recipe))


def _checkpoint(store: Store, step: int, gone: list[int]) -> dict[str, Any]:
    return {"kind": "checkpoint", "step": step, "sha256": store.peek(step).sha256, "removed": gone, "why": _WHY}


def _end(ended: dict[str, Any] | None) -> dict[str, Any]:
    """The end as it was told before, or that of a launch that was still at work when it was packed."""
    if ended is None:
        return {"outcome": "stopped", "why": _WHY}
    return {key: value for key, value in ended.items() if key not in ("v", "t", "kind", "step", "chain")}


def _append(run: RunDir, records: list[dict[str, Any]]) -> None:
    """Goes on with the newest file from its last whole line."""
    audit = audit_file(launch_files(run.telemetry)[-1])
    lines, chain = b"", audit.chain
    for record in records:
        line, chain = chained({"v": VERSION, "t": round(time.time(), 3), **record}, chain)
        lines += line
    fd = os.open(audit.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.ftruncate(fd, audit.bytes)
        write_all(fd, lines)
        os.fsync(fd)
    finally:
        os.close(fd)


def _keep_newer(run: RunDir, before: dict[str, Any] | None) -> None:
    """What a person changed after the story had ended is still newer than the story."""
    for path, version in ((run.limits, LIMITS_VERSION), (run.checkpoints / "pins.json", PINS_VERSION)):
        with suppress(OndeviceError):  # absent, or damaged and found so by whoever looks
            body = read_sealed(path, version=version)
            if before is not None and body.get("after") == before:
                write_sealed(path, {**body, "after": end_of_story(run.telemetry)})
