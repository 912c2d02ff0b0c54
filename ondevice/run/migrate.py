"""Brings a run of an older layout up to the present one; called by whoever holds its lock.

Each step leaves a run that both the step before and the step after can read, and ``run.json``, which states the layout,
is written last: a crash in between is repeated from the start.
"""

from __future__ import annotations

import platform
from contextlib import suppress

from ondevice.errors import DataError
from ondevice.run.config import change_limits, read_limits, write_limits
from ondevice.run.directory import LAYOUT, RunDir
from ondevice.run.files import read_json, write_sealed
from ondevice.run.papers import lineage_of, paper_hashes
from ondevice.run.schema import Limits

__all__ = ["migrate"]


def migrate(run: RunDir) -> list[str]:
    """Gives one sentence for each thing it did; none for a run of the present layout.

    Raises DataError or CheckpointError where the run cannot be read, ResourceError on a full disk.
    """
    layout = run.read_identity()["layout"]
    return [*_from_1(run)] if layout < LAYOUT else []


def _from_1(run: RunDir) -> list[str]:
    """Layout 2 seals ``run.json``, ``limits.json`` and ``status.json`` and records the hashes of the papers."""
    identity = run.read_identity()
    if run.limits.exists():
        _seal_limits(run)
    with suppress(OSError):  # the present tense of a trainer that is gone; the next one writes its own
        run.status.unlink(missing_ok=True)
    parent = identity.get("parent")
    unknown = {"python": None, "system": None, "machine": platform.machine()}  # layout 1 did not say
    write_sealed(
        run.identity,
        {
            **identity,
            "v": LAYOUT,
            "layout": LAYOUT,
            "command": [],
            "environment": unknown,
            "papers": paper_hashes(run),
            "parent": parent,
            "lineage": lineage_of(parent),
        },
    )
    return [f"{run.name}: brought from layout 1 to layout {LAYOUT}; its papers count as sound as they are now."]


def _seal_limits(run: RunDir) -> None:
    with suppress(DataError):
        read_limits(run.limits)
        return
    raw = read_json(run.limits)
    if not isinstance(raw, dict) or raw.get("v") != 1 or "sha256" in raw:
        raise DataError(f"{run.limits}: not a run's limits; delete it to go back to those of config.toml.")
    changes = {key: value for key, value in raw.items() if key != "v" and value is not None}
    write_limits(run.limits, change_limits(Limits(), changes, where=str(run.limits)))
