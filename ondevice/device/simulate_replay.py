"""A recorded phone with the face of a simulated one: what it says was said before, whatever work is done.

``phone = ReplayPhone(Path("trace.csv")); phone.advance(10); phone.read().battery_c``. The file has a ``t_s`` column and
any of COLUMNS; other columns are passed over, empty cells are None.
"""

from __future__ import annotations

import csv
from bisect import bisect_right
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from ondevice.device.readings import NAMES, Reading
from ondevice.errors import UsageError

__all__ = ["COLUMNS", "ReplayPhone"]

# Column of the file: value of a reading. Of several cores the hottest counts.
COLUMNS = {
    "cpu_big_c": "cpu_c",
    "cpu_little_c": "cpu_c",
    "cpu_c": "cpu_c",
    "chassis_c": "skin_c",
    "skin_c": "skin_c",
    "battery_c": "battery_c",
    "battery_percent": "battery_percent",
    "power_w": "power_w",
    "headroom": "headroom",
    "freq_share": "freq_share",
}

Row = dict[str, float]


class ReplayPhone:
    """Goes through the recording as its time goes on; after the end the last row stands still."""

    def __init__(self, path: Path, *, start_t: float = 1.7e9) -> None:
        """Raises UsageError for a file that is no such recording. ``start_t``: unix seconds of the first row."""
        self._times_s, self._rows = _read(path)
        self.unknown = dict.fromkeys(set(NAMES) - set().union(*self._rows), "not in the recording")
        self.now_s = self.worked_s = 0.0
        self.killed = False
        self._start_t = start_t

    @property
    def speed(self) -> float:
        """Always 1: the recording does not know of our work."""
        return 1.0

    @property
    def finished(self) -> bool:
        """Whether the last row was reached."""
        return self.now_s >= self._times_s[-1]

    @property
    def t(self) -> float:
        """Unix seconds of its clock."""
        return self._start_t + self.now_s

    @property
    def truth(self) -> Row:
        """The row of now."""
        return self._rows[self._index]

    def advance(self, dt_s: float, *, duty: float = 1.0, threads: int | None = None) -> None:
        """Lets time pass; the work is counted and changes nothing."""
        self.now_s += dt_s
        self.worked_s += dt_s * duty

    def work(self, full_speed_s: float, *, threads: int | None = None) -> float:
        """Works at full speed; the seconds it took."""
        self.advance(full_speed_s)
        return full_speed_s

    def read(self) -> Reading:
        """The values recorded last."""
        index = self._index
        row, age_s = self._rows[index], round(self.now_s - self._times_s[index], 3)
        told: dict[str, Any] = dict(row)
        told["sources"] = dict.fromkeys(row, "recording")
        told["ages_s"] = dict.fromkeys(row, age_s)
        told["unknown"] = {name: why for name, why in self.unknown.items() if name not in row}
        return Reading(t=self.t, **told)

    def close(self) -> None:
        """Nothing to end."""

    @property
    def _index(self) -> int:
        return max(0, bisect_right(self._times_s, self.now_s) - 1)


def _read(path: Path) -> tuple[list[float], list[Row]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = [(float(cells["t_s"]), _values(cells)) for cells in csv.DictReader(lines)]
    except OSError as error:
        raise UsageError(f"The recording {path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"The recording {path} is not UTF-8 at byte {error.start}.") from None
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{path} is no recording: it needs a header line with t_s, and numbers below it.") from None
    times_s = [t_s - rows[0][0] for t_s, _ in rows]
    if not rows or any(later <= before for before, later in pairwise(times_s)) or not any(row for _, row in rows):
        raise UsageError(f"{path} is no recording: t_s must rise, and some of {', '.join(COLUMNS)} must be there.")
    return times_s, [row for _, row in rows]


def _values(cells: dict[str, str]) -> Row:
    row: Row = {}
    for column, name in COLUMNS.items():
        value = float(cells.get(column) or "nan")
        if isfinite(value):
            row[name] = max(value, row.get(name, value))
    return row
