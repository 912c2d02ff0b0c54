"""What a trainer's governor remembers of its device from one launch to the next: ``governor.json``, sealed.

Derived from what was felt, never part of what is learned: it may be deleted at any time, and what is damaged or of
another device is left aside. What is in it is the business of ``ondevice.train.remember``.
"""

from __future__ import annotations

import os
from typing import Any

from ondevice.run.directory import RunDir
from ondevice.run.files import read_sealed, write_sealed

__all__ = ["REMEMBERED_VERSION", "read_remembered", "write_remembered"]

REMEMBERED_VERSION = 1


def read_remembered(run: RunDir) -> dict[str, Any] | None:
    """None where there is none. Raises DataError where it is damaged, CheckpointError for a newer version."""
    if not os.path.lexists(run.governor):
        return None
    return read_sealed(run.governor, version=REMEMBERED_VERSION)


def write_remembered(run: RunDir, body: dict[str, Any]) -> None:
    """Replaces it in one instant; for the holder of the lock. Raises ResourceError or DataError."""
    write_sealed(run.governor, {"v": REMEMBERED_VERSION, **body})
