"""The limits that somebody wrote for a run: from ``limits.json`` or, where there is none, from ``config.toml``.

What the preset adds to them only the trainer knows, who knows its device; the status has it under ``policy``.
"""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir
from ondevice.run.files import read_regular, read_sealed
from ondevice.run.schema import LIMITS_VERSION, Limits

__all__ = ["DEFAULTS", "Manners"]

DEFAULTS = {key: value for key, value in dataclasses.asdict(Limits()).items() if value is not None}
_KEYS = {item.name for item in dataclasses.fields(Limits)}
_LONGEST = 1 << 20


@dataclass(frozen=True)
class Manners:
    """``written`` holds the keys of ``[limits]`` that somebody wrote; ``trouble`` is a sentence or empty."""

    written: dict[str, Any] = field(default_factory=dict)
    trouble: str = ""

    @classmethod
    def read(cls, run: RunDir) -> Manners:
        """Never raises."""
        try:
            if run.limits.exists():
                return cls(_known(read_sealed(run.limits, version=LIMITS_VERSION)))
            return cls(_of_config(run.config))
        except OndeviceError as error:
            return cls(trouble=str(error))
        except (OSError, ValueError, RecursionError) as error:
            return cls(trouble=f"{run.config}: the limits cannot be read ({error}).")

    @staticmethod
    def files(run: RunDir) -> tuple[Path, ...]:
        """What they are read from, to see whether they changed."""
        return run.limits, run.config


def _of_config(path: Path) -> dict[str, Any]:
    try:
        raw = tomllib.loads(read_regular(path, limit=_LONGEST).decode("utf-8")).get("limits")
    except FileNotFoundError:
        return {}
    return _known(raw) if isinstance(raw, dict) else {}


def _known(raw: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in raw.items() if key in _KEYS and value is not None}
