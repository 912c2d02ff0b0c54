"""Numbers as a report shows them: losses, tokens, durations, moments, what is unknown."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["UNKNOWN", "duration", "interval", "loss", "millions", "moment", "percent", "size"]

UNKNOWN = "-"


def loss(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4f}"


def millions(tokens: float) -> str:
    """``3_000_000 -> '3.00 M'``, small counts as they are."""
    return f"{tokens / 1e6:,.2f} M" if tokens >= 1e5 else f"{tokens:,.0f}"


def percent(share: float | None) -> str:
    return UNKNOWN if share is None else f"{100 * share:.0f} %"


def size(mb: float) -> str:
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
    return UNKNOWN if t is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(t))


def interval(found: dict[str, Any] | None, *, digits: int = 4) -> str:
    """``{'estimate': ..., 'low': ..., 'high': ...} -> '+0.12 (+0.10 to +0.14)'``."""
    if found is None:
        return UNKNOWN
    text = f"{found['estimate']:+.{digits}f}"
    return (
        text
        if found["low"] is None or found["low"] == found["high"]
        else f"{text} ({found['low']:+.{digits}f} to {found['high']:+.{digits}f})"
    )
