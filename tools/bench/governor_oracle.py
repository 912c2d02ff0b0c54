"""What could be done at most: the work of one who knows the phone exactly and every minute to come.

The oracle works as early as it can: before each block of work it rests just so long that, were it to rest for ever
afterwards, no limit would be passed. Since heat adds up, what is known of the free course (no work at all) plus the
fading of what is already in the phone decides that at once. How it is best to bundle work is not known beforehand
(a throttled core does more for a joule), so several block lengths and an even spread are tried, and the best counts.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ondevice.device.simulate import SimulatedPhone

__all__ = ["Free", "oracle_work_s"]

GRID_S = 10.0
AHEAD_S = (0, 1, 2, 3, 5, 8, 12, 20, 30, 40, 50, 60, 75, 90, 110, 130, 160, 200, 250, 300, 400, 500, 700, 900)
SLACK_C = 1e-4
SPREAD_S = 10.0
BUNDLES_S = (10.0, 20.0, 50.0, 120.0)
SEARCH = 7


@dataclass(frozen=True)
class Free:
    """The course without work: times, modes and temperatures of the limited nodes, a little beyond the end."""

    times_s: list[float]
    modes: np.ndarray  # [time, mode]
    rows: list[np.ndarray]  # [ahead, mode] of each limited node, faded
    temperatures: list[np.ndarray]  # [time] of each limited node
    limits_c: list[float]

    @classmethod
    def of(cls, phone: SimulatedPhone, until_s: float, limits_c: dict[str, float]) -> Free:
        """From now to some time after ``until_s``."""
        rests, shapes = phone.copy(), {node: np.array(phone.network.shape[node]) for node in limits_c}
        fade = np.exp(-np.outer(AHEAD_S, phone.network.rates))
        times_s, modes = [rests.now_s], [rests.network.modes]
        while rests.now_s < until_s + AHEAD_S[-1] + GRID_S:
            rests.advance(GRID_S, duty=0.0)
            times_s.append(rests.now_s)
            modes.append(rests.network.modes)
        course = np.array(modes)
        rows = [fade * shape for shape in shapes.values()]
        return cls(times_s, course, rows, [course @ shape for shape in shapes.values()], list(limits_c.values()))

    def allows(self, phone: SimulatedPhone) -> bool:
        """Whether the phone, resting for ever from now on, stays below every limit that it can still keep.

        Where even the free course is above the limit, nothing may be added to it.
        """
        index = min(bisect_right(self.times_s, phone.now_s + 1e-9) - 1, len(self.times_s) - 2)
        share = (phone.now_s - self.times_s[index]) / GRID_S
        free = (1 - share) * self.modes[index] + share * self.modes[index + 1]
        extra = np.array(phone.network.modes) - free
        ahead = phone.now_s + np.array(AHEAD_S)
        for row, course, limit_c in zip(self.rows, self.temperatures, self.limits_c, strict=True):
            coming = row @ extra
            expected = np.interp(ahead, self.times_s, course) + coming
            if np.any((expected > limit_c + SLACK_C) & (coming > SLACK_C)):
                return False
        return True


def oracle_work_s(phone: SimulatedPhone, until_s: float, micro_batch_s: float, limits_c: dict[str, float]) -> float:
    """Seconds of full-speed work by ``until_s``; the phone itself is left alone."""
    free = Free.of(phone, until_s, limits_c)
    goals = (micro_batch_s, *BUNDLES_S) if micro_batch_s >= 1 else BUNDLES_S
    blocks = sorted({micro_batch_s * max(1, round(goal / micro_batch_s)) for goal in goals if goal >= micro_batch_s})
    done = [in_blocks(phone.copy(), free, until_s, block_s) for block_s in blocks]
    if micro_batch_s < 1:
        done.append(spread(phone.copy(), free, until_s))
    return max(done)


def in_blocks(phone: SimulatedPhone, free: Free, until_s: float, block_s: float) -> float:
    """Blocks of work, each as early as it can be."""
    before_s = 0.0
    while phone.now_s < until_s:
        rest_s = earliest(
            lambda rest_s: free.allows(after_block(phone, rest_s, block_s)), before_s, until_s - phone.now_s
        )
        if rest_s is None:
            break
        phone.advance(rest_s, duty=0.0)
        before_s, left_s = rest_s, until_s - phone.now_s
        if left_s < 2 * block_s:
            phone.advance(min(left_s, block_s / max(phone.speed, 0.1)))
        else:
            phone.work(block_s)
    return phone.worked_s


def after_block(phone: SimulatedPhone, rest_s: float, block_s: float) -> SimulatedPhone:
    """The phone that rested and then worked."""
    tried = phone.copy()
    tried.advance(rest_s, duty=0.0)
    tried.work(block_s)
    return tried


def earliest(fits: Callable[[float], bool], before_s: float, most_s: float) -> float | None:
    """The shortest rest below ``most_s`` that fits, to one part in a hundred; the search begins at the last one."""
    if fits(0.0):
        return 0.0
    low, high = 0.0, max(0.5, before_s)
    while not fits(high):
        low, high = high, 1.3 * high if high < 2 * before_s else 3 * high
        if low >= most_s:
            return None
    if low == 0.0 and before_s > 0 and not fits(0.8 * before_s):
        low = 0.8 * before_s
    for _ in range(SEARCH):
        if high - low < 0.01 * high:
            break
        middle = 0.5 * (low + high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high if high < most_s else None


def spread(phone: SimulatedPhone, free: Free, until_s: float) -> float:
    """The largest duty every few seconds, evenly spread."""
    while phone.now_s < until_s - 1e-9:
        dt_s = min(SPREAD_S, until_s - phone.now_s)
        phone.advance(dt_s, duty=largest(phone, free, dt_s))
    return phone.worked_s


def largest(phone: SimulatedPhone, free: Free, dt_s: float) -> float:
    """The largest duty that fits for ``dt_s`` seconds."""

    def fits(duty: float) -> bool:
        tried = phone.copy()
        tried.advance(dt_s, duty=duty)
        return free.allows(tried)

    if fits(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(SEARCH + 3):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
