"""Time that goes on while the device sleeps, and what a process can tell of the time in which it did not run.

CLOCK_MONOTONIC stands still in suspend, CLOCK_BOOTTIME does not, and the wall clock may be set at any moment. Knows
nothing of runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Clocks", "Gap", "boottime_s"]

NOTICEABLE_S = 2.0
TELL_EVERY_S = 60.0  # a phone that dozes in short naps must not fill the story
LATE_S = 30.0
IDLE = 0.2  # a process that ran got more than this share of a core


def boottime_s() -> float:
    """Seconds since boot, sleep included where the system counts it (Linux, Android), else without."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


@dataclass(frozen=True, kw_only=True)
class Gap:
    """What happened to a process since it last looked. Seconds; ``jumped_s`` is negative for a clock set back."""

    slept_s: float = 0.0
    frozen_s: float = 0.0
    jumped_s: float = 0.0

    def __str__(self) -> str:
        said = []
        if self.slept_s:
            said.append(f"The device slept {self.slept_s:,.0f} s.")
        if self.frozen_s:
            said.append(f"The process was frozen {self.frozen_s:,.0f} s: the system gave it no time.")
        if self.jumped_s:
            way = "forward" if self.jumped_s > 0 else "back"
            said.append(f"The wall clock was set {way} by {abs(self.jumped_s):,.0f} s.")
        return " ".join(said)


@dataclass(frozen=True, kw_only=True)
class _Now:
    monotonic_s: float
    asleep_s: float  # since boot
    wall_ahead_s: float  # of the time since boot
    cpu_s: float


class Clocks:
    """Looked at often by a process that wants to know when it was away. Totals are since the first look."""

    def __init__(
        self,
        *,
        boottime: Callable[[], float] = boottime_s,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.slept_s = self.frozen_s = 0.0
        self._boottime, self._monotonic, self._wall, self._cpu = boottime, monotonic, wall, cpu
        self._last = self._read()
        self._asleep_told_s, self._told_at = self._last.asleep_s, float("-inf")

    def boottime_s(self) -> float:
        """Now, by the clock that counts sleep."""
        return self._boottime()

    def look(self, *, usual_s: float = 0.0, may_idle: bool = False) -> Gap | None:
        """What happened since the last look, or None.

        ``usual_s`` is how long work may take between two looks; ``may_idle``: it was waiting for a disk, so that
        a late look with an idle processor says nothing.
        """
        now, before = self._read(), self._last
        self._last = now
        self.slept_s += max(0.0, now.asleep_s - before.asleep_s)
        frozen_s = 0.0 if may_idle else _frozen(before, now, usual_s)
        self.frozen_s += frozen_s
        jumped_s = now.wall_ahead_s - before.wall_ahead_s
        gap = Gap(
            slept_s=self._untold_sleep(now),
            frozen_s=frozen_s,
            jumped_s=jumped_s if abs(jumped_s) > NOTICEABLE_S else 0.0,
        )
        return gap if gap != Gap() else None

    def _untold_sleep(self, now: _Now) -> float:
        slept_s = now.asleep_s - self._asleep_told_s
        if slept_s <= NOTICEABLE_S or now.monotonic_s - self._told_at < TELL_EVERY_S:
            return 0.0
        self._asleep_told_s, self._told_at = now.asleep_s, now.monotonic_s
        return slept_s

    def _read(self) -> _Now:
        boottime, monotonic = self._boottime(), self._monotonic()
        return _Now(
            monotonic_s=monotonic,
            asleep_s=boottime - monotonic,
            wall_ahead_s=self._wall() - boottime,
            cpu_s=self._cpu(),
        )


def _frozen(before: _Now, now: _Now, usual_s: float) -> float:
    """Seconds of a gap that no work explains: late, and hardly any processor time was used."""
    gap_s, worked_s = now.monotonic_s - before.monotonic_s, now.cpu_s - before.cpu_s
    late = gap_s > max(LATE_S, 3.0 * usual_s)
    return gap_s - worked_s if late and worked_s < IDLE * gap_s else 0.0
