"""The records of decoding sweeps among a run's judgements: their version, and the latest of them. Knows no torch."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.files import read_sealed

__all__ = ["SWEEP_VERSION", "latest_sweep"]

SWEEP_VERSION = 1


def latest_sweep(evals: Path) -> dict[str, Any] | None:
    """Of the sweeps that can be read the one that was written last."""
    for path in sorted(evals.glob("sweep-*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        with suppress(OndeviceError):
            return read_sealed(path, version=SWEEP_VERSION)
    return None
