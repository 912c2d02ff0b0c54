"""Whether a run is alive, derived from its lock, status and telemetry; never stored.

Lock held and a fresh heartbeat: running, resting or waiting. Held but stale: asleep (Android froze the process). Free
with an ``end`` record: finished or stopped. Free without one: killed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from ondevice.errors import DataError
from ondevice.run.directory import RunDir, lock_holder
from ondevice.run.files import read_json
from ondevice.run.telemetry import read_file

__all__ = ["Liveness", "read_liveness", "read_status"]

_STALE_S = 60.0  # a heartbeat older than this and than three expected steps means frozen


@dataclass(frozen=True)
class Liveness:
    """``state`` is one of new, running, resting, waiting, asleep, finished, stopped, failed, killed."""

    state: str
    age_s: float | None = None
    holder: str | None = None


def read_status(run: RunDir) -> dict[str, Any]:
    """``status.json``, or an empty dict where there is none yet or it cannot be read."""
    try:
        raw = read_json(run.status)
    except (DataError, OSError):
        return {}
    return raw if isinstance(raw, dict) else {}


def read_liveness(run: RunDir, *, now: float | None = None) -> Liveness:
    """The present state of a run."""
    status, holder = read_status(run), lock_holder(run)
    beat = status.get("heartbeat_t")
    age_s = None if beat is None else max(0.0, (now or time.time()) - beat)
    if holder is None:
        return Liveness(_ended_as(run), age_s)
    patience_s = max(_STALE_S, 3.0 * (status.get("step_s") or 0.0))
    if age_s is not None and age_s > patience_s:
        return Liveness("asleep", age_s, holder)
    return Liveness(status.get("state") or "running", age_s, holder)


def _ended_as(run: RunDir) -> str:
    files = sorted(run.telemetry.glob("[0-9]*.jsonl"), key=lambda path: int(path.stem))
    if not files:
        return "new"
    last = None
    for record in read_file(files[-1]):
        if record["kind"] == "end":
            last = record
    return "killed" if last is None else str(last.get("outcome", "stopped"))
