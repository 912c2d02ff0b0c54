"""The parts of a run that learns in stages, from ``schedule.json`` where there is one. Never raises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.files import read_json
from tui.snapshot import Part
from tui.values import number as number_of
from tui.values import text, whole
from tui.words import printable

__all__ = ["read_schedule"]

_MOST = 10_000
_STATES = {"waiting": "planned", "training": "active", "failed": "failed", "done": "done", "skipped": "skipped"}


def read_schedule(path: Path) -> tuple[Part, ...]:
    """No parts where there is no schedule or it cannot be understood."""
    try:
        raw = read_json(path) if path.exists() else {}
    except (OndeviceError, OSError):
        return ()
    parts = raw.get("parts") if isinstance(raw, dict) else None
    found = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return tuple(_part(number, part) for number, part in enumerate(found[:_MOST], 1))


def _part(number: int, raw: dict[str, Any]) -> Part:
    name, stage, state = (printable(text(raw, key)) for key in ("name", "stage", "state"))
    sources, results = raw.get("sources"), raw.get("results")
    return Part(
        number=number,
        name=name,
        stage=stage,
        source=printable(", ".join(map(str, sources))) if isinstance(sources, dict) else "",
        steps=whole(raw, "planned_steps"),
        tokens=whole(raw, "tokens"),
        state=_STATES.get(state, "planned"),
        loss=number_of(results, "val_loss_mixed") if isinstance(results, dict) else None,
        tries=whole(raw, "tries") or 0,
        error=printable(text(raw, "error")),
    )
