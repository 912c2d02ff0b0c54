"""How the machine feels now: memory, heat, battery, speed and disk, cheap enough to ask at every step.

One `Sensors` belongs to one trainer or command. What can be read at once is read by whoever asks; on a phone one daemon
thread asks what takes seconds (the phone's own commands, Android's thermal service). Knows nothing of limits or orders.
"""

from __future__ import annotations

import dataclasses
import os
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.device import android as android_thermal
from ondevice.device import battery, cpufreq, screen, termux_battery, thermal
from ondevice.device.answer import Answer, fold, nothing
from ondevice.device.clock import boottime_s
from ondevice.device.host import existing_ancestor, find_termux, platform_name
from ondevice.device.memory import MIB, memory_within, peak_rss_mb, rss_mb
from ondevice.device.memory_group import MemoryGroup
from ondevice.device.poller import Poller, SlowSource
from ondevice.device.unknown import attempt, why

__all__ = ["Reading", "Sensors", "peak_rss_mb", "settled_reading"]

_MEMORY_NAMES, _DISK_NAMES = ("available_mb", "total_mb", "rss_mb"), ("disk_free_mb",)
_COSTS_AT_MOST = 1 / 200  # of the time, for a driver that is slow to answer
_SETTLE_S = 8.0


@dataclass(frozen=True)
class Reading:
    """One moment; every value but the time may be None. Sizes in MiB, temperatures in degrees Celsius.

    ``sources`` and ``ages_s`` say of every value where it came from and how old it was at ``t``; ``unknown`` says of
    every None why.
    """

    t: float  # unix seconds
    rss_mb: float | None = None
    available_mb: float | None = None
    total_mb: float | None = None
    cpu_c: float | None = None
    battery_percent: float | None = None
    plugged: bool | None = None
    disk_free_mb: float | None = None
    battery_c: float | None = None
    skin_c: float | None = None  # the body of a phone
    charging: str | None = None  # charging, discharging, full, not_charging
    power_w: float | None = None  # drawn from the battery; negative while it charges
    thermal_status: int | None = None  # Android's: 0 none, 3 severe, 6 shutdown
    headroom: float | None = None  # Android's: 1.0 is severe
    freq_share: float | None = None  # of their top speed, for the fastest cores
    screen_on: bool | None = None
    sources: dict[str, str] = field(default_factory=dict, compare=False)
    ages_s: dict[str, float] = field(default_factory=dict, compare=False)
    unknown: dict[str, str] = field(default_factory=dict, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The time and the values, flat, as a record of the telemetry has them."""
        return {name: value for name, value in vars(self).items() if name not in _DETAILS}

    def details(self) -> dict[str, dict[str, Any]]:
        """Sources, ages and reasons, for a person who wonders about a value."""
        return {name: dict(getattr(self, name)) for name in _DETAILS}


_DETAILS = ("sources", "ages_s", "unknown")
NAMES = tuple(each.name for each in dataclasses.fields(Reading) if each.name not in ("t", *_DETAILS))


class Sensors:
    """Reads this machine at most once a ``period_s`` and remembers the answer in between.

    ``Sensors(run_folder).read().available_mb``; ``unknown`` says why a value of the last real reading was None.
    `close` ends the thread where there is one; so does the garbage collector.
    """

    def __init__(
        self,
        folder: Path,
        *,
        period_s: float = 1.0,
        proc: Path = Path("/proc"),
        sysfs: Path = Path("/sys"),
        env: Mapping[str, str] | None = None,
        clock: Callable[[], float] = boottime_s,
    ) -> None:
        env = os.environ if env is None else env
        self.unknown: dict[str, str] = {}
        self._clock, self._period_s = clock, period_s
        self._quick = _quick_sources(folder, period_s, proc=proc, sysfs=sysfs, clock=clock)
        slow, self._missing = _slow_sources(env)
        self._poller = Poller(slow, clock=clock)
        self._finalize = weakref.finalize(self, self._poller.close)
        self._last: Reading | None = None
        self._due = float("-inf")

    def read(self) -> Reading:
        """The reading of now, or the last one if it is younger than the period. Never raises, never waits."""
        self._poller.poke()
        now = self._clock()
        if self._last is None or now >= self._due:
            self._due = now + self._period_s
            self._last = self._read(now)
        return self._last

    def settle(self, timeout_s: float = _SETTLE_S) -> Reading:
        """A reading after every slow source answered or failed once, or the time is over: for who asks only once."""
        self._poller.poke()
        until = time.monotonic() + timeout_s
        while not self._poller.settled and time.monotonic() < until:
            time.sleep(0.02)
        self._due = float("-inf")
        return self.read()

    def close(self) -> None:
        """Ends the thread and what it waits for. Slow values grow old from now on."""
        self._finalize()

    def _read(self, now: float) -> Reading:
        told = [(source.latest(now), source.age_s(now)) for source in self._quick]
        folded = fold([*told, (self._missing, 0.0), *self._poller.latest()])
        self.unknown = folded.unknown
        return Reading(
            t=round(time.time(), 3),
            sources=folded.sources,
            ages_s=folded.ages_s,
            unknown=dict(folded.unknown),
            **folded.values,
        )


def settled_reading(folder: Path) -> Reading:
    """One complete reading for a command that asks once; takes up to 8 s on a phone whose commands hang."""
    sensors = Sensors(folder)
    try:
        return sensors.settle()
    finally:
        sensors.close()


class _Quick:
    """A source that answers at once, asked at most once a period, and less often where it is slow after all."""

    def __init__(self, names: tuple[str, ...], ask: Callable[[], Answer], *, period_s: float) -> None:
        self._names, self._ask, self._period_s = names, ask, period_s
        self._answer, self._at_s, self._due_s = Answer(), 0.0, float("-inf")

    def latest(self, now: float) -> Answer:
        if now >= self._due_s:
            began = time.perf_counter()
            self._answer, self._at_s = self._asked(), now
            self._due_s = now + max(self._period_s, (time.perf_counter() - began) / _COSTS_AT_MOST)
        return self._answer

    def age_s(self, now: float) -> float:
        return now - self._at_s

    def _asked(self) -> Answer:
        try:
            return self._ask()
        except Exception as error:  # drivers, vendors and psutil raise what they like
            return nothing(self._names, why(error))


def _quick_sources(
    folder: Path, period_s: float, *, proc: Path, sysfs: Path, clock: Callable[[], float]
) -> tuple[_Quick, ...]:
    """The most trusted first; a value that the kernel tells now comes before what a command said 20 s ago."""
    thermometers, cores = thermal.Thermometers(sysfs, clock=clock), cpufreq.FastestCores(sysfs)
    disk, group = str(existing_ancestor(folder)), MemoryGroup.of_this_process(proc, sysfs)
    sources: tuple[tuple[tuple[str, ...], Callable[[], Answer]], ...] = (
        (_MEMORY_NAMES, lambda: _memory(proc, group)),
        (_DISK_NAMES, lambda: _disk(disk)),
        (thermal.NAMES, thermometers.read),
        (battery.NAMES, lambda: _battery(sysfs)),
        (cpufreq.NAMES, cores.read),
        (screen.NAMES, lambda: screen.read_screen(sysfs)),
    )
    return tuple(_Quick(names, ask, period_s=period_s) for names, ask in sources)


def _memory(proc: Path, group: MemoryGroup | None) -> Answer:
    unknown: dict[str, str] = {}
    memory = attempt(unknown, "available_mb", lambda: memory_within(group, proc))
    if memory is None:
        unknown["total_mb"] = unknown["available_mb"]
    values = {
        "rss_mb": _rounded(attempt(unknown, "rss_mb", lambda: rss_mb(proc))),
        "available_mb": _rounded(memory.available_mb if memory else None),
        "total_mb": _rounded(memory.total_mb if memory else None),
    }
    return Answer.of("proc" if (proc / "meminfo").exists() else "psutil", values, unknown)


def _disk(folder: str) -> Answer:
    disk = os.statvfs(folder)
    return Answer.of("statvfs", {"disk_free_mb": _rounded(disk.f_bavail * disk.f_frsize / MIB)}, {})


def _battery(sysfs: Path) -> Answer:
    if platform_name() == "android" or (sysfs / "class/power_supply").is_dir():
        return battery.from_sysfs(sysfs)
    return battery.from_psutil()


def _slow_sources(env: Mapping[str, str]) -> tuple[list[SlowSource], Answer]:
    """What a thread must ask here, and why the rest cannot be asked."""
    android, termux = platform_name() == "android", find_termux(env) is not None
    sources: list[SlowSource] = []
    missing: dict[str, str] = {}
    if command := termux_battery.find_command(env):
        sources.append(_termux_battery(command))
    elif android or termux:
        missing.update(dict.fromkeys(battery.NAMES, f"{termux_battery.COMMAND} is not installed"))
    if android:
        sources.append(SlowSource(android_thermal.NAMES, android_thermal.ask_android, android_thermal.PERIOD_S))
    else:
        reason = "Android's thermal service cannot be asked from inside proot" if termux else "only Android tells it"
        missing.update(dict.fromkeys(android_thermal.NAMES, reason))
    return sources, Answer(unknown=missing)


def _termux_battery(command: str) -> SlowSource:
    def ask(stopped: Callable[[], bool]) -> Answer:
        return termux_battery.ask_termux(command, stopped, timeout_s=termux_battery.TIMEOUT_S)

    return SlowSource(battery.NAMES, ask, termux_battery.PERIOD_S)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
