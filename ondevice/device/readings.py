"""How the machine feels now: memory, temperature, battery and disk, cheap enough to ask at every step.

One `Sensors` belongs to one trainer or command. It starts no process and no thread; the phone's own commands
(``termux-*``) are not asked here.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.device.host import existing_ancestor
from ondevice.device.memory import MIB, MachineMemory, machine_memory, peak_rss_mb, rss_mb
from ondevice.device.thermal import CpuThermometer
from ondevice.device.unknown import attempt

__all__ = ["Reading", "Sensors", "peak_rss_mb"]


@dataclass(frozen=True)
class Reading:
    """One moment; every value but the time may be None. Sizes in MiB, temperature in degrees Celsius."""

    t: float  # unix seconds
    rss_mb: float | None = None
    available_mb: float | None = None
    total_mb: float | None = None
    cpu_c: float | None = None
    battery_percent: float | None = None
    plugged: bool | None = None
    disk_free_mb: float | None = None

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of the same."""
        return dataclasses.asdict(self)


class Sensors:
    """Reads this machine at most once a ``period_s`` and remembers the answer in between.

    ``Sensors(run_folder).read().available_mb``; ``unknown`` says why a value of the last real reading was None.
    """

    def __init__(
        self,
        folder: Path,
        *,
        period_s: float = 1.0,
        proc: Path = Path("/proc"),
        sysfs: Path = Path("/sys"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.unknown: dict[str, str] = {}
        self._disk = str(existing_ancestor(folder))
        self._proc, self._clock, self._period_s = proc, clock, period_s
        self._thermometer = CpuThermometer(sysfs, clock=clock)
        self._last: Reading | None = None
        self._due = float("-inf")

    def read(self) -> Reading:
        """The reading of now, or the last one if it is younger than the period. Never raises."""
        now = self._clock()
        if self._last is None or now >= self._due:
            self._due = now + self._period_s
            self._last = self._read()
        return self._last

    def _read(self) -> Reading:
        memory: MachineMemory | None = attempt(self.unknown, "available_mb", lambda: machine_memory(self._proc))
        percent, plugged = attempt(self.unknown, "battery_percent", _battery) or (None, None)
        return Reading(
            t=round(time.time(), 3),
            rss_mb=_rounded(attempt(self.unknown, "rss_mb", lambda: rss_mb(self._proc))),
            available_mb=_rounded(memory.available_mb if memory else None),
            total_mb=_rounded(memory.total_mb if memory else None),
            cpu_c=attempt(self.unknown, "cpu_c", self._thermometer.read),
            battery_percent=percent,
            plugged=plugged,
            disk_free_mb=_rounded(attempt(self.unknown, "disk_free_mb", lambda: _disk_free_mb(self._disk))),
        )


def _battery() -> tuple[float | None, bool | None]:
    import psutil

    battery = psutil.sensors_battery()
    if battery is None:
        raise LookupError("no battery found")
    percent = float(battery.percent)
    return (round(percent, 1) if 0 <= percent <= 100 else None), battery.power_plugged


def _disk_free_mb(folder: str) -> float:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize / MIB


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
