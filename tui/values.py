"""Values of records and status files by key: what has not the type it should have is as good as missing."""

from __future__ import annotations

from typing import Any

from ondevice.run.telemetry import as_number

__all__ = ["flag", "number", "table", "text", "when", "whole"]


def number(raw: dict[str, Any], key: str) -> float | None:
    """A finite number of that key, else None."""
    return as_number(raw.get(key))


def whole(raw: dict[str, Any], key: str) -> int | None:
    """A whole number of that key, else None."""
    value = raw.get(key)
    return value if type(value) is int and as_number(value) is not None else None


def text(raw: dict[str, Any], key: str) -> str:
    """A string of that key, else an empty one."""
    value = raw.get(key)
    return value if isinstance(value, str) else ""


def flag(raw: dict[str, Any], key: str) -> bool | None:
    """True or false of that key, else None."""
    value = raw.get(key)
    return value if isinstance(value, bool) else None


def table(raw: dict[str, Any], key: str) -> dict[str, Any]:
    """A table of that key, else an empty one."""
    value = raw.get(key)
    return value if isinstance(value, dict) else {}


def when(record: dict[str, Any]) -> float | None:
    """The time of a record; on a simulated device its own time, in which it warms and rests."""
    told = number(record, "sim_t")
    return number(record, "t") if told is None else told
