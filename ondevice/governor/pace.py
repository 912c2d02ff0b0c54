"""Step times as a heat sensor that needs no permission: how much slower a step is than it was on the cold device.

Where no temperature can be read, or the processor itself says that it is slowed down, the duty shrinks while steps take
longer than the person accepts, and grows back slowly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median

__all__ = ["Pace", "after_step", "allowed", "slowdown"]

BLOCK_S = 1.0  # short steps are averaged over this long
RING, ENOUGH = 7, 3
LOOK_S = 10.0
GAIN, LEARNING_S = 0.7, 100.0  # of duty for a slowdown of 1 too much; how long until the base has learned as much
MOST_BASE, LEAST = 0.6, 0.06  # LEAST: without any step there is nothing to measure


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of recent steps and of the fastest stretch so far; ``duty`` is what the pace allows now."""

    recent_s: tuple[float, ...] = ()
    cold_s: float | None = None
    block: tuple[int, float] = (0, 0.0)
    base: float = 1.0
    duty: float = 1.0
    looked_t: float | None = None


def after_step(pace: Pace, step_s: float) -> Pace:
    """A step, or a micro-batch, always of the same size, took ``step_s`` seconds."""
    if not step_s > 0:
        return pace
    count, total_s = pace.block[0] + 1, pace.block[1] + step_s
    if total_s < BLOCK_S:
        return replace(pace, block=(count, total_s))
    recent_s = (*pace.recent_s[-(RING - 1) :], total_s / count)
    cold_s = pace.cold_s
    if len(recent_s) >= ENOUGH:
        now_s = median(recent_s)
        cold_s = now_s if cold_s is None else min(cold_s, now_s)
    return replace(pace, recent_s=recent_s, cold_s=cold_s, block=(0, 0.0))


def slowdown(pace: Pace) -> float | None:
    """1.2: steps take 20 % longer than on the cold device. None while too few are known."""
    if pace.cold_s is None or len(pace.recent_s) < ENOUGH:
        return None
    return median(pace.recent_s) / pace.cold_s


def allowed(pace: Pace, max_slowdown: float, now: float, *, trusted: bool) -> Pace:
    """The pace with the duty it allows from now on. Not ``trusted``: slow steps have another cause than heat."""
    slow = slowdown(pace)
    if pace.looked_t is None or not 0 <= now - pace.looked_t < 60 * LOOK_S:
        return replace(pace, looked_t=now)
    passed_s = now - pace.looked_t
    if passed_s < LOOK_S or slow is None:
        return pace
    if not trusted:
        return replace(pace, base=1.0, duty=1.0, looked_t=now)
    spare = max_slowdown - slow
    base = pace.base + GAIN * spare * min(passed_s, 3 * LOOK_S) / LEARNING_S
    most = MOST_BASE if spare < 0.5 * (max_slowdown - 1) else 1.0
    base = min(most, max(LEAST, base))
    return replace(pace, base=base, duty=min(1.0, max(LEAST, base + GAIN * min(0.0, spare))), looked_t=now)
