"""Numbers as a report shows them: losses, tokens, durations, moments, what is unknown."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

__all__ = [
    "UNKNOWN",
    "amount",
    "between",
    "duration",
    "interval",
    "listed",
    "loss",
    "millions",
    "moment",
    "percent",
    "size",
    "source_name",
]

UNKNOWN = "-"


def loss(value: float | None) -> str:
    """Of nats a token."""
    return UNKNOWN if value is None else f"{value:.4f}"


def millions(tokens: float) -> str:
    """``3_000_000 -> '3.00 M'``, small counts as they are."""
    return f"{tokens / 1e6:,.2f} M" if tokens >= 1e5 else f"{tokens:,.0f}"


def percent(share: float | None) -> str:
    """``0.25 -> '25 %'``."""
    return UNKNOWN if share is None else f"{100 * share:.0f} %"


def size(mb: float) -> str:
    """Of megabytes (2^20 bytes): ``1536 -> '1.5 GB'``."""
    return f"{mb / 1024:,.1f} GB" if mb >= 1024 else f"{mb:,.1f} MB"


def duration(seconds: float | None) -> str:
    """``95 -> '1 min 35 s'``."""
    if seconds is None:
        return UNKNOWN
    whole = round(seconds)
    for unit, name, below, under in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // below} {under}"
    return f"{whole} s"


def moment(t: float | None) -> str:
    """Of seconds since 1970, in the zone of this machine."""
    return UNKNOWN if t is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(t))


def interval(found: dict[str, Any] | None, *, digits: int = 3) -> str:
    """``{'estimate': ..., 'low': ..., 'high': ...} -> '+0.12 (+0.10 to +0.14)'``."""
    if found is None:
        return UNKNOWN
    text = f"{found['estimate']:+.{digits}f}"
    return (
        text
        if found["low"] is None or found["low"] == found["high"]
        else f"{text} ({found['low']:+.{digits}f} to {found['high']:+.{digits}f})"
    )


def amount(found: dict[str, Any], unit: str, *, digits: int = 3) -> str:
    """As `interval`, for a sentence: ``'+0.12 nats (95 % between +0.10 and +0.14)'``."""
    text = f"{found['estimate']:+.{digits}f} {unit}"
    return text if found["low"] is None else f"{text} ({between(found, digits=digits, signed=True)})"


def between(found: dict[str, Any], *, digits: int = 3, signed: bool = False) -> str:
    """``'95 % between 0.10 and 0.14'``; ``signed`` or of the size alone, where the sentence says which way it goes."""
    low, high = found["low"], found["high"]
    if not signed:
        low, high = sorted((abs(low), abs(high)))
    sign = "+" if signed else ""
    return f"{100 * found['level']:.3g} % between {low:{sign}.{digits}f} and {high:{sign}.{digits}f}"


def listed(names: Iterable[str]) -> str:
    """``['a', 'b', 'c'] -> 'a, b and c'``."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def source_name(name: str) -> str:
    """Of a folder of code that is named as its language, the name once: ``'python.python' -> 'python'``."""
    folder, _, language = name.partition(".")
    return folder if folder == language else name
