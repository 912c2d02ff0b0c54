"""A simulated phone under a real training loop, in fast time.

``clock = SimClock(speed=60)``; ``live = LivePhone(phone, clock, real=Sensors(folder))``; around each micro-batch
``clock.sleep(live.worked(busy_s))`` adds what throttling would have cost, and ``live.read()`` is the reading of now.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Protocol

from ondevice.device.readings import Reading
from ondevice.device.simulate import SimulatedPhone
from ondevice.device.simulate_replay import ReplayPhone

__all__ = ["LivePhone", "SimClock"]

_OF_THIS_MACHINE = ("rss_mb", "available_mb", "total_mb", "disk_free_mb")


class SimClock:
    """Seconds that go ``speed`` times as fast as those of the wall."""

    def __init__(
        self,
        speed: float = 1.0,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not speed > 0:
            raise ValueError(f"a clock cannot go at speed {speed}")
        self.speed = speed
        self._monotonic, self._sleep, self._began = monotonic, sleep, monotonic()

    def now_s(self) -> float:
        """Simulated seconds since it was made."""
        return (self._monotonic() - self._began) * self.speed

    def sleep(self, simulated_s: float) -> None:
        """Waits so many simulated seconds."""
        if simulated_s > 0:
            self._sleep(simulated_s / self.speed)


class _Readable(Protocol):
    def read(self) -> Reading: ...


class LivePhone:
    """Same face as `Sensors`; memory and disk are this machine's where ``real`` can read them."""

    def __init__(self, phone: SimulatedPhone | ReplayPhone, clock: SimClock, *, real: _Readable | None = None) -> None:
        self.phone = phone
        self._clock, self._real = clock, real

    def worked(self, busy_s: float, *, threads: int | None = None) -> float:
        """Tells of ``busy_s`` simulated seconds of work that end now; how many more they would have taken there."""
        self._idle_until(self._clock.now_s() - busy_s)
        took_s = self.phone.work(busy_s, threads=threads)
        return max(0.0, took_s - busy_s)

    def read(self) -> Reading:
        """What the phone says now; time since the last work was rest."""
        self._idle_until(self._clock.now_s())
        told = self.phone.read()
        if self._real is None:
            return told
        real = self._real.read()
        known = {name: value for name in _OF_THIS_MACHINE if (value := getattr(real, name)) is not None}
        sources = told.sources | dict.fromkeys(known, "this machine")
        unknown = {name: why for name, why in told.unknown.items() if name not in known}
        return dataclasses.replace(told, **known, sources=sources, unknown=unknown)

    @property
    def unknown(self) -> dict[str, str]:
        """Why a value of the last reading was None."""
        return self.phone.unknown

    def close(self) -> None:
        """Nothing to end."""

    def _idle_until(self, now_s: float) -> None:
        if now_s > self.phone.now_s:
            self.phone.advance(now_s - self.phone.now_s, duty=0.0)
