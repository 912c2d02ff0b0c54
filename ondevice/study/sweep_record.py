"""The records of decoding sweeps among a run's judgements: their version, the latest, what is sure. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.files import read_sealed

__all__ = ["SWEEP_VERSION", "latest_sweep", "surely_differs"]

SWEEP_VERSION = 1


def latest_sweep(evals: Path) -> dict[str, Any] | None:
    """Of the sweeps that can be read the one that was written last."""
    for path in sorted(evals.glob("sweep-*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        with suppress(OndeviceError):
            return read_sealed(path, version=SWEEP_VERSION)
    return None


def surely_differs(difference: Mapping[str, Any]) -> bool:
    """Whether the interval of a record's difference, which must have one, leaves out 0."""
    return bool(difference["low"] > 0 or difference["high"] < 0)
