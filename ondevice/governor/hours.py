"""The hours in which a run may work: ``"mon-fri 22:30-06:45, sat 00:00-24:00"`` in local civil time.

A window that ends before it begins ends on the next day. Civil time alone decides whether a window is open, so a clock
change shortens or lengthens a night as it does for people. Knows no limits and no orders.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache

from ondevice.errors import UsageError

__all__ = ["ALWAYS", "Window", "civil", "is_open", "next_close", "next_open", "parse_hours"]

ALWAYS = "always"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_A_DAY = 24 * 60
_LONGEST_GAP_MINUTES = 4 * 60  # of a clock change, with room
_PART = re.compile(r"(?:([a-z]{3})(?:\s*-\s*([a-z]{3}))?\s+)?(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")


@dataclass(frozen=True)
class Window:
    """Opens on ``days`` (0 is Monday) at ``start``; ``end`` may lie in the next day. Minutes since midnight."""

    days: frozenset[int]
    start: int
    end: int


@lru_cache(maxsize=32)
def parse_hours(text: str) -> tuple[Window, ...]:
    """The windows in words; none where the run may always work. Raises UsageError."""
    if text.strip().lower() in ("", ALWAYS):
        return ()
    return tuple(_window(part.strip().lower(), text) for part in text.split(","))


def _window(part: str, text: str) -> Window:
    found = _PART.fullmatch(part)
    if found is None:
        raise UsageError(
            f"The hours {text!r} cannot be read at {part!r}; write them like '22:30-06:45' or "
            "'mon-fri 22:30-06:45, sat 00:00-24:00'."
        )
    first, last, *numbers = found.groups()
    start, end = (_minutes(int(hour), int(minute), text) for hour, minute in (numbers[:2], numbers[2:]))
    if start in (end, MINUTES_A_DAY):
        raise UsageError(f"The hours {text!r} hold an empty window at {part!r}; the whole day is 00:00-24:00.")
    return Window(_days(first, last or first, text), start, end if end > start else end + MINUTES_A_DAY)


def _minutes(hour: int, minute: int, text: str) -> int:
    total = 60 * hour + minute
    if minute > 59 or total > MINUTES_A_DAY:
        raise UsageError(f"The hours {text!r} name {hour:02}:{minute:02}, which no clock shows.")
    return total


def _days(first: str | None, last: str | None, text: str) -> frozenset[int]:
    if first is None:
        return frozenset(range(7))
    unknown = next((day for day in (first, last) if day not in DAYS), None)
    if unknown is not None:
        raise UsageError(f"The hours {text!r} name the day {unknown!r}; days are {', '.join(DAYS)}.")
    begin, end = DAYS.index(first), DAYS.index(str(last))
    return frozenset((begin + offset) % 7 for offset in range((end - begin) % 7 + 1))


def is_open(windows: tuple[Window, ...], local: datetime) -> bool:
    """Whether work is allowed at that civil time."""
    if not windows:
        return True
    day, minute = local.weekday(), 60 * local.hour + local.minute
    yesterday = (day - 1) % 7
    return any(
        (day in window.days and window.start <= minute < window.end)
        or (yesterday in window.days and minute + MINUTES_A_DAY < window.end)
        for window in windows
    )


def civil(t: float, zone: tzinfo | None) -> datetime:
    """Unix seconds as a clock on the wall shows them; ``zone`` None is where the machine thinks it is."""
    return datetime.fromtimestamp(t, zone)


def next_open(windows: tuple[Window, ...], t: float, zone: tzinfo | None) -> float:
    """Unix seconds of the first moment at or after ``t`` that is open."""
    local = civil(t, zone)
    if is_open(windows, local):
        return t
    midnight = local.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    starts = (
        midnight + timedelta(days=ahead, minutes=window.start)
        for ahead in range(9)
        for window in windows
        if (midnight + timedelta(days=ahead)).weekday() in window.days
    )
    moments = (_moment(start, windows, zone) for start in starts)
    return min(moment for moment in moments if moment >= t)


def next_close(windows: tuple[Window, ...], t: float, zone: tzinfo | None) -> float | None:
    """Unix seconds of the first closed moment after an open ``t``, to the minute; None where it never closes."""
    if not windows:
        return None
    midnight = civil(t, zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    ends = sorted(
        (midnight + timedelta(days=ahead, minutes=window.end)).replace(tzinfo=zone).timestamp()
        for ahead in range(-1, 9)
        for window in windows
        if (midnight + timedelta(days=ahead)).weekday() in window.days
    )
    return next((end for end in ends if end > t and not is_open(windows, civil(end, zone))), None)


def _moment(start: datetime, windows: tuple[Window, ...], zone: tzinfo | None) -> float:
    """When a window opens; one that begins in an hour the clocks leave out opens after the gap."""
    t = start.replace(tzinfo=zone).timestamp()
    for _ in range(_LONGEST_GAP_MINUTES):
        if is_open(windows, civil(t, zone)):
            break
        t += 60.0
    return t
