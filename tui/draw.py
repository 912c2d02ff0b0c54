"""Sparklines, bars and big numbers as characters. Pure; knows Rich's Text only."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from rich.text import Text

from tui.look import UNICODE, Glyphs

__all__ = ["bar", "begun", "big", "column_of", "columns", "settled_range", "sparkline", "strip"]

_DIGITS = {  # 3 x 5 dots a character, row by row
    "0": (7, 5, 5, 5, 7), "1": (2, 6, 2, 2, 7), "2": (7, 1, 7, 4, 7), "3": (7, 1, 3, 1, 7), "4": (5, 5, 7, 1, 1),
    "5": (7, 4, 7, 1, 7), "6": (7, 4, 7, 5, 7), "7": (7, 1, 1, 1, 1), "8": (7, 5, 7, 5, 7), "9": (7, 5, 7, 1, 7),
    ".": (0, 0, 0, 0, 2), ",": (0, 0, 0, 0, 2), "-": (0, 0, 7, 0, 0), "%": (5, 1, 2, 4, 5), "+": (0, 2, 7, 2, 0),
    "k": (4, 5, 6, 6, 5), "M": (5, 7, 7, 5, 5), " ": (0, 0, 0, 0, 0), ":": (0, 2, 0, 2, 0),
}  # fmt: skip
_HALVES = " ▀▄█"


def begun(text: str, style: str = "") -> Text:
    """A line that begins like that; what is appended has a style of its own, which a Text's own style would colour."""
    return Text(no_wrap=True).append(text, style)


def bar(share: float | None, width: int, glyphs: Glyphs = UNICODE, style: str = "", dim: str = "dim") -> Text:
    """A progress bar of exactly ``width`` cells."""
    halves = int(2 * width * min(1.0, max(0.0, share or 0.0)))
    filled = glyphs.full * (halves // 2) + glyphs.half * (halves % 2)
    return begun(filled, style).append(glyphs.empty * (width - len(filled)), dim)


def sparkline(points: Sequence[tuple[float, float]], width: int, glyphs: Glyphs = UNICODE) -> str:
    """A curve in one line of at most ``width`` cells; a steep beginning does not flatten the rest."""
    if not points or width < 1:
        return ""
    ends = points[0][0], points[-1][0]
    means = columns([x for x, _ in points], [y for _, y in points], ends, min(width, len(points)))
    low, high = settled_range([mean for _, mean in means])
    top = len(glyphs.spark) - 1
    return "".join(glyphs.spark[round(top * min(1.0, max(0.0, (y - low) / (high - low))))] for _, y in means)


def strip(
    xs: Sequence[float], ys: Sequence[float], ends: tuple[float, float], width: int, height: int, glyphs: Glyphs
) -> list[str]:
    """Shares between 0 and 1 as columns of ``height`` rows; a column without a value goes on as the last before it."""
    found = dict(columns(xs, ys, ends, width))
    ended = dict(zip((column_of(x, ends, width) for x in xs), ys, strict=True))
    steps = len(glyphs.spark)
    levels, last = [], None
    for column in range(width):
        share = found.get(column, last)
        levels.append(None if share is None else round(min(1.0, max(0.0, share)) * steps * height))
        last = ended.get(column, last)
    return ["".join(_block(level, (height - 1 - row) * steps, glyphs) for level in levels) for row in range(height)]


def _block(level: int | None, base: int, glyphs: Glyphs) -> str:
    if level is None:
        return " "
    inside = min(len(glyphs.spark), level - base)
    if inside <= 0:
        return glyphs.spark[0] if base == 0 else " "
    return glyphs.spark[inside - 1]


def columns(xs: Sequence[float], ys: Sequence[float], ends: tuple[float, float], count: int) -> list[tuple[int, float]]:
    """(column, mean of the points in it) for every column that has points."""
    sums: dict[int, tuple[float, int]] = {}
    for x, y in zip(xs, ys, strict=True):
        column = column_of(x, ends, count)
        total, number = sums.get(column, (0.0, 0))
        sums[column] = total + y, number + 1
    return [(column, total / number) for column, (total, number) in sorted(sums.items())]


def column_of(x: float, ends: tuple[float, float], count: int) -> int:
    """Which of ``count`` columns between ``ends`` an x falls in; the first or last where it lies outside."""
    low, high = ends
    if high <= low:
        return 0
    scale = (count - 1) / (high - low)
    place = (x - low) * scale if isfinite(scale) else (x - low) / (high - low) * (count - 1)
    return min(count - 1, max(0, round(place)))


def settled_range(values: Sequence[float]) -> tuple[float, float]:
    """Lowest and highest, never equal; a first tenth that would more than double the range is left out of it."""
    settled = values[len(values) // 10 :]
    low, high = min(settled), max(settled)
    whole_low, whole_high = min(values), max(values)
    if whole_high - whole_low <= 2 * (high - low):
        low, high = whole_low, whole_high
    return (low, high) if high - low > 1e-9 * max(1.0, abs(high)) else (low - 0.5, high + 0.5)


def big(text: str, glyphs: Glyphs = UNICODE, style: str = "") -> Text:
    """A number three rows tall, for a phone at arm's length; in ASCII, or with other characters, as it is."""
    if not glyphs.unicode or any(character not in _DIGITS for character in text):
        return Text(text, f"bold {style}".strip(), no_wrap=True)
    rows = []
    for top in (0, 2, 4):
        cells = (_half_rows(character, top) for character in text)
        rows.append(" ".join(cells))
    return Text("\n".join(rows), style, no_wrap=True)


def _half_rows(character: str, top: int) -> str:
    """Three cells, each of which holds a dot of row ``top`` and one of the row below."""
    pattern = (*_DIGITS[character], 0)
    upper, lower = pattern[top], pattern[top + 1]
    width = (1,) if character in ".,:" else (2, 1, 0)
    return "".join(_HALVES[(upper >> bit & 1) + 2 * (lower >> bit & 1)] for bit in width)
