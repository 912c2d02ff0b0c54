"""How one documented key of the wish is written: its default, meaning, unit, choices and bounds.

Knows no section: `ondevice.run.schema` and `ondevice.run.schema_data` hold the keys themselves.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

__all__ = ["LARGEST_SEED", "MANY_STEPS", "MANY_TOKENS", "MUCH_MB", "key"]

# Beyond these lies a slip of the finger: no device of today gets there, and numbers still fit where they are used.
LARGEST_SEED = 2**63 - 1
MANY_STEPS, MANY_TOKENS = 1_000_000_000, 1_000_000_000_000
MUCH_MB = 1e7


def key(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    choices: tuple[str, ...] = (),
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
) -> Any:
    """A documented key. ``low``/``high`` are inclusive bounds, ``above`` is an exclusive lower bound."""
    return field(
        default=default,
        metadata={"doc": doc, "unit": unit, "choices": choices, "low": low, "high": high, "above": above},
    )
