"""The border guard: which telemetry records and status values have types that can be folded and painted.

Readers ignore unknown keys; this module only judges the keys the digest and the screens use.
"""

from __future__ import annotations

import json
import math
from typing import Any

from ondevice.run.telemetry import VERSION

__all__ = ["fault_of", "flag", "number", "parse", "text", "too_new", "whole"]

_LARGEST = 10**15  # beyond this a value is damage, and times and float columns overflow

_NEEDED_WHOLE = ("step", "tokens")
_WHOLE = ("steps", "resumed_step", "best_step")
_NUMBERS = ("t", "loss", "lr", "grad_norm", "tok_s", "step_s", "rss_mb", "val_loss_mixed", "save_s")
_TEXTS = ("kind", "prompt", "text", "outcome", "why", "verb", "id", "from")


def parse(line: bytes) -> dict[str, Any] | None:
    """The record in a line, or None where there is none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("kind"), str) else None


def too_new(record: dict[str, Any]) -> int | None:
    """The record's version where this program cannot know what it means."""
    version = record.get("v")
    return version if isinstance(version, int) and version > VERSION else None


def fault_of(record: dict[str, Any]) -> str:
    """The first key whose value cannot be what it says, or an empty string."""
    for key, value in record.items():
        if not _is_sound(key, value):
            return key
    return ""


def _is_sound(key: str, value: Any) -> bool:
    if key in _NEEDED_WHOLE:
        return _is_whole(value)
    if key in _WHOLE:
        return value is None or _is_whole(value)
    if key in _NUMBERS:
        return value is None or _is_number(value)
    if key in _TEXTS:
        return value is None or isinstance(value, str)
    if key == "val_loss":
        return value is None or (isinstance(value, dict) and all(v is None or _is_number(v) for v in value.values()))
    if key == "removed":
        return value is None or (isinstance(value, list) and all(map(_is_whole, value)))
    return True


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -1 <= value <= _LARGEST


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST and (isinstance(value, int) or math.isfinite(value))


def number(raw: dict[str, Any], key: str) -> float | None:
    """A finite number of that key, else None."""
    value = raw.get(key)
    return value if _is_number(value) else None


def whole(raw: dict[str, Any], key: str) -> int | None:
    """A whole number of that key, else None."""
    value = raw.get(key)
    return value if _is_whole(value) else None


def text(raw: dict[str, Any], key: str) -> str:
    """A string of that key, else an empty one."""
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def flag(raw: dict[str, Any], key: str) -> bool | None:
    """True or false of that key, else None."""
    value = raw.get(key)
    return value if isinstance(value, bool) else None
