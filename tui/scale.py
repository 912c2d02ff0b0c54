"""Labels of axes at round values: numbers, times of day, durations. Pure; knows no Rich."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from tui.words import clock, clock_short, day, duration, past_midnight_s, short

__all__ = ["Range", "x_labels", "y_ticks"]

Range = tuple[float, float]
_APART = 11  # cells from one label of the x axis to the next, at least
_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


def y_ticks(y_range: Range, rows: int, *, log: bool) -> dict[int, str]:
    """Row -> label at round values, at most one for three rows."""
    low, high = y_range
    most = max(3, rows // 3)
    values = _log_values(low, high, most) if log else _round_values(low, high, most)
    found = {}
    for value in values:
        at = math.log10(value) if log else value
        row = round((high - at) / (high - low) * (rows - 1)) if high > low else 0
        if 0 <= row < rows:
            found[row] = _label(value, values)
    return found


def _round_values(low: float, high: float, most: int) -> list[float]:
    step = _round_step((high - low) / most)
    if not step or not math.isfinite(step) or (high - low) / step > 1000:
        return [low, high]
    first = math.ceil(low / step)
    return [n * step for n in range(first, first + int((high - low) / step) + 2) if low <= n * step <= high]


def _round_step(about: float) -> float:
    if about <= 0 or not math.isfinite(about):
        return 0.0
    power = 10.0 ** math.floor(math.log10(about))
    return next((factor * power for factor in (1, 2, 5) if factor * power >= about), 10 * power)


def _log_values(low: float, high: float, most: int) -> list[float]:
    if not -300 < low <= high < 300:
        return []
    decades = range(math.floor(low), math.ceil(high) + 1)
    for parts in ((1, 2, 5), (1, 3), (1,)):
        values = [part * 10.0**decade for decade in decades for part in parts]
        values = [value for value in values if low <= math.log10(value) <= high]
        if 2 <= len(values) <= most:
            return values
    return values if len(values) > most else _round_values(10.0**low, 10.0**high, most)


def _label(value: float, values: Sequence[float]) -> str:
    apart = min((b - a for a, b in pairwise(values)), default=abs(value)) or 1.0
    if abs(value) >= 10_000:
        return short(value)
    if abs(value) < 1e-3 and value:
        return f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.{min(4, max(0, -math.floor(math.log10(apart) + 1e-9)))}f}"


def x_labels(x_range: Range, axis: str, gutter: int, width: int) -> str:
    """A row of ``width`` cells with labels under their places, ``gutter`` cells from the left."""
    (low, high), room = x_range, width - gutter
    line = [" "] * width
    for value, label in _x_ticks(low, high, axis, max(2, room // _APART)):
        at = gutter + round((room - 1) * (value - low) / (high - low) if high > low else 0.0)
        start = max(0, gutter - 1, min(at - len(label) // 2, width - len(label)))
        if all(character == " " for character in line[max(0, start - 1) : start + len(label) + 1]):
            line[start : start + len(label)] = label
    return "".join(line[:width])


def _x_ticks(low: float, high: float, axis: str, most: int) -> list[tuple[float, str]]:
    """At round values; at both ends where there are none between them."""
    if axis in ("steps", "tokens"):
        tried = (_round_values(low, high, number) for number in (most, most + 1, 2 * most))
        whole = ([value for value in values if value == round(value)] for values in tried)
        values = next((values for values in whole if len(values) > 1), [])
        word: Callable[[float | None], str] = short
    else:
        step = next((step for step in _SECONDS if step * most >= high - low), _round_step((high - low) / most))
        base = low - past_midnight_s(low) if axis == "time" else 0.0
        first = math.ceil((low - base) / step) if step else 0
        values = [base + n * step for n in range(first, first + most + 1) if base + n * step <= high]
        word = _clock_for(step) if axis == "time" else duration
    return [(value, word(value)) for value in (values if len(values) > 1 else [low, high])]


def _clock_for(step: float) -> Callable[[float | None], str]:
    return clock if step < 60 else clock_short if step < 86400 else day
