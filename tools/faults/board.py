"""A small shared memory between a victim and its killer: what the victim does now, how often, and for how long.

It outlives the victim, so the killer reads in it where the kill fell.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

__all__ = ["BACKGROUND", "MAIN", "Board", "Phase"]

MAIN, BACKGROUND = 0, 1  # lanes: the thread that trains, and any other
_COMMITTED, _CLOCK_NS, _SLEPT_NS = 2, 3, 4
_ENTRIES, _LAST_NS = 8, 24
_SIZE = 4096


class Phase(IntEnum):
    """What a thread does; ``PROMOTION`` is from the rename of a checkpoint to the fsync of its parent."""

    START = 0
    STEP = 1
    SAVE = 2
    PROMOTION = 3
    PRUNE = 4
    OTHER = 5  # evaluation, samples, letters, status
    IDLE = 6  # the background lane while nothing is saved there


class Board:
    """Slots of 64 bits in a file that both sides map."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_SIZE))
        with open(path, "r+b") as file:
            self._slots = memoryview(mmap.mmap(file.fileno(), _SIZE)).cast("q")

    def reset(self) -> None:
        """Before a life: counters to zero; the clock and the durations stay."""
        self._slots[MAIN], self._slots[BACKGROUND] = Phase.START, Phase.IDLE
        self._slots[_COMMITTED] = self._slots[_SLEPT_NS] = 0
        for phase in Phase:
            self._slots[_ENTRIES + phase] = 0

    def phase(self, lane: int) -> Phase:
        return Phase(self._slots[lane])

    def entries(self, phase: Phase) -> int:
        """How often a phase was entered in this life."""
        return self._slots[_ENTRIES + phase]

    def last_s(self, phase: Phase) -> float:
        """Seconds the phase took when it was last left; 0 before."""
        return self._slots[_LAST_NS + phase] / 1e9

    @property
    def committed(self) -> int | None:
        """The newest step whose commit returned in this life."""
        return self._slots[_COMMITTED] - 1 if self._slots[_COMMITTED] else None

    @committed.setter
    def committed(self, step: int) -> None:
        self._slots[_COMMITTED] = step + 1

    @property
    def clock_ns(self) -> int:
        """What is added to the time of day of everyone who looks here."""
        return self._slots[_CLOCK_NS]

    @clock_ns.setter
    def clock_ns(self, offset: int) -> None:
        self._slots[_CLOCK_NS] = offset

    @property
    def slept_ns(self) -> int:
        """What a hurried victim believes to have slept in this life."""
        return self._slots[_SLEPT_NS]

    @slept_ns.setter
    def slept_ns(self, total: int) -> None:
        self._slots[_SLEPT_NS] = total

    def enter(self, lane: int, phase: Phase) -> tuple[Phase, int]:
        """Begins a phase; what it gives belongs to `leave`."""
        before = self.phase(lane), time.monotonic_ns()
        self._slots[lane] = phase
        self._slots[_ENTRIES + phase] += 1
        return before

    def leave(self, lane: int, before: tuple[Phase, int]) -> None:
        self._slots[_LAST_NS + self._slots[lane]] = time.monotonic_ns() - before[1]
        self._slots[lane] = before[0]

    @contextmanager
    def during(self, lane: int, phase: Phase) -> Iterator[None]:
        before = self.enter(lane, phase)
        try:
            yield
        finally:
            self.leave(lane, before)
