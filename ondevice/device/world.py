"""The world that a trainer lives in: its clocks, its sleep, and how it feels there.

`Machine` is the real one. ``ondevice.device.simulate_live`` has one that is computed and goes faster. Whoever waits,
measures a duration or asks the governor asks the world; what is learned never depends on it. Signs of life for others
(heartbeats, letters, ``t`` of a record) stay on the clock on the wall, whatever the world.
"""

from __future__ import annotations

import os
import time
from typing import Any, Protocol

from ondevice.device.clock import boottime_s
from ondevice.device.host import on_android
from ondevice.device.readings import Reading

__all__ = ["LOOK_S", "Machine", "Readable", "World"]

LOOK_S = 0.2


class Readable(Protocol):
    """What `Sensors` and its likes are to those who only read."""

    def read(self) -> Reading: ...


class World(Protocol):
    """Seconds are its own: an hour of a simulated phone may take a minute."""

    @property
    def handheld(self) -> bool:
        """Whether it is a phone or a tablet."""
        ...

    @property
    def look_s(self) -> float:
        """How long one may stand still in it between two looks at what changed."""
        ...

    @property
    def simulated(self) -> dict[str, Any] | None:
        """What a ``launch`` record says of it; None for a real machine."""
        ...

    def now(self) -> float:
        """Unix seconds that its clock on the wall shows."""
        ...

    def monotonic(self) -> float:
        """Seconds for durations of work and rest."""
        ...

    def boottime(self) -> float:
        """The same, time asleep included where the system counts it."""
        ...

    def processor(self) -> float:
        """Seconds of processor time that work took so far, all threads together."""
        ...

    def sleep(self, seconds: float) -> None:
        """Stands still."""
        ...

    def worked(self, busy_s: float, *, piece: bool, threads: int) -> float:
        """Tells of work that ends now and took ``busy_s`` seconds; gives how many it takes here.

        ``piece``: it was a micro-batch.
        """
        ...

    def read(self) -> Reading:
        """How it feels now. Never raises, never waits."""
        ...

    def memory(self) -> dict[str, Any]:
        """What a ``reading`` record holds beside the reading, so that a later launch can go on from there."""
        ...


class Machine:
    """The real world, felt by ``sensors``."""

    simulated: dict[str, Any] | None = None
    look_s = LOOK_S

    def __init__(self, sensors: Readable) -> None:
        self.handheld = on_android(os.environ)
        self._sensors = sensors

    def now(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def boottime(self) -> float:
        return boottime_s()

    def processor(self) -> float:
        return time.process_time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def worked(self, busy_s: float, *, piece: bool, threads: int) -> float:
        return busy_s

    def read(self) -> Reading:
        return self._sensors.read()

    def memory(self) -> dict[str, Any]:
        return {}
