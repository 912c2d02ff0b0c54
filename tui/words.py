"""Numbers, times and foreign text as short words for a screen. Pure; ``None`` is always ``-``."""

from __future__ import annotations

import time

__all__ = [
    "clock",
    "clock_short",
    "count",
    "day",
    "decimal",
    "degrees",
    "duration",
    "fit",
    "megabytes",
    "past_midnight_s",
    "percent",
    "printable",
    "short",
]


def count(value: float | None) -> str:
    """``1234.4 -> '1,234'``."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) < 1e15 else f"{value:.1e}"


def decimal(value: float | None, digits: int = 3) -> str:
    """``2.34567 -> '2.346'``; what would be too long or too small for that is written with an exponent."""
    if value is None:
        return "-"
    if value and not 10**-digits <= abs(value) < 1e6:
        return f"{value:.1e}"
    return f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """``0.6169 -> '61.7%'``; never 100 before the end."""
    if share is None:
        return "-"
    return "100%" if share >= 1 else f"{min(99.9, 100 * share):.1f}%"


def megabytes(value: float | None) -> str:
    """MiB as ``412 MB`` or ``11 GB``."""
    if value is None:
        return "-"
    return f"{value:,.0f} MB" if value < 10_000 else f"{count(value / 1024)} GB"


def duration(seconds: float | None) -> str:
    """``95 -> '1m35s'``, at most two units."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole >= 1000 * 86400:
        return ">1000d"
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400:,}d{whole % 86400 // 3600:02d}h"


def clock(t: float | None) -> str:
    """Local time of day of a unix time."""
    there = _local(t)
    return time.strftime("%H:%M:%S", there) if there else "--:--:--"


def printable(text: str) -> str:
    """Text of a stranger (a young model, a damaged file) that cannot command the terminal or break its encoding."""
    return "".join(c if c.isprintable() or c == "\n" else " " if c in "\t\r\v\f" else "\ufffd" for c in text)


def fit(text: str, width: int, ellipsis: str = "…") -> str:
    """The text on one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: max(0, width - len(ellipsis))] + ellipsis[: max(0, width)]


def short(value: float | None) -> str:
    """``12345 -> '12.3k'``: at most five characters up to a thousand billions."""
    if value is None:
        return "-"
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995 and abs(value) < 1e15:
            scaled = value / size
            return f"{scaled:.0f}{unit}" if abs(scaled) >= 99.95 or scaled == round(scaled) else f"{scaled:.1f}{unit}"
    return f"{value:.0f}" if abs(value) < 1e15 else f"{value:.0e}"


def clock_short(t: float | None) -> str:
    """``22:41``, local time."""
    return clock(t)[:5]


def day(t: float | None) -> str:
    """``11-21``, month and day of local time."""
    there = _local(t)
    return time.strftime("%m-%d", there) if there else "--:--"


def past_midnight_s(t: float) -> float:
    """Seconds since local midnight; 0 for a time no clock knows."""
    there = _local(t)
    return there.tm_hour * 3600 + there.tm_min * 60 + there.tm_sec + t % 1 if there else 0.0


def _local(t: float | None) -> time.struct_time | None:
    """None for a time no clock knows."""
    try:
        return None if t is None else time.localtime(t)
    except (OverflowError, ValueError, OSError):
        return None


def degrees(value: float | None, unit: str) -> str:
    """``41.5°C``."""
    return "-" if value is None else f"{value:.1f}{unit}"
