"""Step times as a heat sensor that needs no permission: how much slower a step is than it was on the cold device.

Where no temperature can be read, or the processor itself says that it is slowed down, the duty shrinks while steps take
longer than the person accepts, and grows back slowly. A slower clock makes a step take more processor time; other
programs only make it wait for its turn, so heat is blamed for no more than both tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median

__all__ = ["Pace", "after_step", "allowed", "crowding", "heat_slowdown", "slowdown"]

BLOCK_S = 1.0  # short steps are averaged over this long
RING, ENOUGH = 7, 3
LOOK_S = 10.0
NOT_HEAT = 1.1  # times the processor time
GAIN, LEARNING_S = 0.7, 100.0  # of duty for a slowdown of 1 too much; how long until the base has learned as much
MOST_BASE, LEAST = 0.6, 0.06  # LEAST: without any step there is nothing to measure


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of recent steps and of the fastest stretch so far, on the wall and (``cpu``) of processor time, all
    threads together, where that is known; ``duty`` is what the pace allows now."""

    recent_s: tuple[float, ...] = ()
    cold_s: float | None = None
    recent_cpu_s: tuple[float, ...] = ()
    cold_cpu_s: float | None = None
    block: tuple[int, float, float | None] = (0, 0.0, 0.0)  # steps, seconds, processor seconds
    base: float = 1.0
    duty: float = 1.0
    looked_t: float | None = None


def after_step(pace: Pace, step_s: float, cpu_s: float | None = None) -> Pace:
    """A step, or a micro-batch, always of the same size, took ``step_s`` seconds and ``cpu_s`` of processor time."""
    if not step_s > 0:
        return pace
    count, total_s = pace.block[0] + 1, pace.block[1] + step_s
    cpu_total_s = _sum(pace.block[2], cpu_s)
    if total_s < BLOCK_S:
        return replace(pace, block=(count, total_s, cpu_total_s))
    recent_s, cold_s = _with(pace.recent_s, pace.cold_s, total_s / count)
    pace = replace(pace, recent_s=recent_s, cold_s=cold_s, block=(0, 0.0, 0.0))
    if cpu_total_s is None:
        return replace(pace, recent_cpu_s=())
    recent_s, cold_s = _with(pace.recent_cpu_s, pace.cold_cpu_s, cpu_total_s / count)
    return replace(pace, recent_cpu_s=recent_s, cold_cpu_s=cold_s)


def _sum(total_s: float | None, cpu_s: float | None) -> float | None:
    """One step of which it is unknown spoils the block."""
    return total_s + cpu_s if total_s is not None and cpu_s is not None and cpu_s > 0 else None


def _with(recent_s: tuple[float, ...], cold_s: float | None, seconds: float) -> tuple[tuple[float, ...], float | None]:
    recent_s = (*recent_s[-(RING - 1) :], seconds)
    if len(recent_s) < ENOUGH:
        return recent_s, cold_s
    now_s = median(recent_s)
    return recent_s, now_s if cold_s is None else min(cold_s, now_s)


def slowdown(pace: Pace) -> float | None:
    """1.2: steps take 20 % longer than on the cold device. None while too few are known."""
    return _slower(pace.recent_s, pace.cold_s)


def heat_slowdown(pace: Pace) -> float | None:
    """As much of it as may come from heat. Threads that wait for one another may count that as processor time, so it
    can be too much, as where no processor time is known."""
    wall, cpu = slowdown(pace), _slower(pace.recent_cpu_s, pace.cold_cpu_s)
    return wall if wall is None or cpu is None else min(wall, cpu)


def crowding(pace: Pace) -> float | None:
    """How many times longer steps take, where heat is not why; None where nobody can tell."""
    if len(pace.recent_cpu_s) < ENOUGH:
        return None
    heat = heat_slowdown(pace)
    return slowdown(pace) if heat is not None and heat < NOT_HEAT else None


def _slower(recent_s: tuple[float, ...], cold_s: float | None) -> float | None:
    return None if cold_s is None or len(recent_s) < ENOUGH else median(recent_s) / cold_s


def allowed(pace: Pace, max_slowdown: float, now: float, *, trusted: bool, blind: bool = True) -> Pace:
    """The pace with the duty it allows from now on. Not ``trusted``: slow steps have another cause than heat. Not
    ``blind``: temperatures are watched as well, so what is accepted may be used up."""
    slow = heat_slowdown(pace)
    if pace.looked_t is None or not 0 <= now - pace.looked_t < 60 * LOOK_S:
        return replace(pace, looked_t=now)
    passed_s = now - pace.looked_t
    if passed_s < LOOK_S or slow is None:
        return pace
    if not trusted:
        return replace(pace, base=1.0, duty=1.0, looked_t=now)
    spare = max_slowdown - slow
    base = pace.base + GAIN * spare * min(passed_s, 3 * LOOK_S) / LEARNING_S
    most = MOST_BASE if blind and spare < 0.5 * (max_slowdown - 1) else 1.0
    base = min(most, max(LEAST, base))
    return replace(pace, base=base, duty=min(1.0, max(LEAST, base + GAIN * min(0.0, spare))), looked_t=now)
