"""Whether a run is alive, derived from its lock, status and telemetry; never stored.

Lock held and a fresh heartbeat (or just taken): running, resting or waiting. Held but stale: asleep (Android froze the
process). Free with an ``end`` record: finished, stopped or failed. Free without one: killed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ondevice.errors import CheckpointError, DataError
from ondevice.run.directory import RunDir, lock_holder
from ondevice.run.files import read_sealed, write_sealed
from ondevice.run.telemetry import as_number, launch_files, read_end

__all__ = ["STATUS_VERSION", "Liveness", "read_liveness", "read_status", "write_status"]

STATUS_VERSION = 1

_STALE_S = 60.0  # a heartbeat older than this and than three expected steps means frozen
_SILENT_S = 300.0  # ... unless it was about to load, save or sample, which has no safe points
_SILENT = ("start", "save", "sample")
_ALIVE = ("running", "resting", "waiting")
_ENDED = ("finished", "stopped", "failed")


@dataclass(frozen=True)
class Liveness:
    """``state`` is one of new, running, resting, waiting, asleep, finished, stopped, failed, killed.

    ``left``: the ``end`` record of a run that stopped for a while only, and waits for someone to start it again.
    """

    state: str
    age_s: float | None = None
    holder: str | None = None
    left: dict[str, Any] | None = None


def read_status(run: RunDir) -> dict[str, Any]:
    """``status.json``, or an empty dict where there is none yet, it is damaged or of a newer version."""
    try:
        return read_sealed(run.status, version=STATUS_VERSION)
    except (DataError, CheckpointError):
        return {}


def write_status(run: RunDir, status: dict[str, Any], *, durable: bool) -> None:
    """Puts the present tense on disk; for the holder of the lock. Raises ResourceError or DataError."""
    write_sealed(run.status, {"v": STATUS_VERSION, **status}, durable=durable)


def read_liveness(run: RunDir, *, now: float | None = None) -> Liveness:
    """The present state of a run. Raises DataError when its telemetry is of a newer version."""
    holder, status = lock_holder(run), read_status(run)
    now = time.time() if now is None else now
    beat = as_number(status.get("heartbeat_t"))
    if holder is None:
        state, end = _ended_as(run)
        left = end if state == "stopped" and end.get("leave") is True else None
        return Liveness(state, None if beat is None else max(0.0, now - beat), left=left)
    # Taking the lock is the first sign of life of a launch; a sign from the future is from before the clock was set
    # back, and a living trainer gives a new one within a second.
    signs = [sign for sign in (beat, _locked_at(run)) if sign is not None and sign <= now + _STALE_S]
    if not signs:
        return Liveness("asleep", None, holder)
    age_s = max(0.0, now - max(signs))
    patience_s = _SILENT_S if status.get("phase") in _SILENT and status.get("state") != "waiting" else _STALE_S
    if age_s > max(patience_s, 3.0 * (as_number(status.get("step_s")) or 0.0)):
        return Liveness("asleep", age_s, holder)
    stated = status.get("state") if beat == max(signs) else None  # else the status is of an earlier launch
    return Liveness(stated if stated in _ALIVE else "running", age_s, holder)


def _locked_at(run: RunDir) -> float | None:
    try:
        return run.lock.stat().st_mtime
    except OSError:
        return None


def _ended_as(run: RunDir) -> tuple[str, dict[str, Any]]:
    """The state of a run without a trainer, and its last words."""
    files = launch_files(run.telemetry)
    if not files:
        return "new", {}
    ends = [record for record in read_end(files[-1]) if record["kind"] == "end"]
    if not ends:
        return "killed", {}
    outcome = ends[-1].get("outcome")
    return (outcome if outcome in _ENDED else "stopped"), ends[-1]
