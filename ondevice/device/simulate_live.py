"""A simulated phone as the world of a real trainer, in fast time.

``world = SimulatedWorld(parse_device("sim:galaxy-s25plus", speed=60), real=Sensors(folder))``. Work takes the
processor time that it took here ``speed`` times, and longer where the phone throttles; a wait of the trainer's process
for its turn is no time there. `memory` goes into ``reading`` records, so that the next launch finds the phone as it is.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from ondevice.device.readings import Reading
from ondevice.device.simulate import SimulatedPhone
from ondevice.device.simulate_profile import NODES
from ondevice.device.simulate_replay import ReplayPhone
from ondevice.device.simulate_sensors import NOT_SIMULATED
from ondevice.device.simulate_wish import DeviceWish
from ondevice.device.world import LOOK_S, Readable

__all__ = ["SimClock", "SimulatedWorld"]

LONGEST_GAP_S = 3600.0  # between two launches; a phone that idled for an hour is cool
_LOOK_S = 0.01  # of the wall, between two looks of one who stands still


class SimClock:
    """Seconds that go ``speed`` times as fast as those of the ``busy`` clock, and as it is told to sleep.

    The default is the processor time of its thread, so that other programs do not make the phone work.
    """

    def __init__(
        self,
        speed: float = 1.0,
        *,
        busy: Callable[[], float] = time.thread_time,
        wall: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not speed > 0:
            raise ValueError(f"a clock cannot go at speed {speed}")
        self.speed = speed
        self._busy, self._wall, self._sleep = busy, wall, sleep
        self._began_s, self._told_s, self._wall_s = busy(), 0.0, wall()

    def now_s(self) -> float:
        """Simulated seconds since it was made."""
        return (self._busy() - self._began_s) * self.speed + self._told_s

    def sleep(self, simulated_s: float) -> None:
        """Waits so many simulated seconds."""
        self._told_s += simulated_s
        self._sleep(simulated_s / self.speed)
        self._wall_s = self._wall()

    def catch_up(self, simulated_s: float) -> None:
        """Lets so many simulated seconds pass, of which those on the wall since the last time have passed already."""
        passed_s = (self._wall() - self._wall_s) * self.speed
        self._told_s += simulated_s
        self._sleep(max(0.0, simulated_s - passed_s) / self.speed)
        self._wall_s = self._wall()


class SimulatedWorld:
    """See `ondevice.device.world.World`. Memory and disk are this machine's, as ``real`` reads them.

    ``before`` is the `memory` of the launch that the phone goes on from, as old as ``gap_s`` seconds.
    """

    def __init__(
        self,
        wish: DeviceWish,
        *,
        real: Readable,
        before: dict[str, Any] | None = None,
        gap_s: float = 0.0,
        clock: SimClock | None = None,
    ) -> None:
        """Raises UsageError for a recording that cannot be read."""
        self.wish, self.handheld = wish, wish.handheld
        self.look_s = max(LOOK_S, _LOOK_S * wish.speed)
        self.simulated: dict[str, Any] | None = {"device": wish.text, "speed": wish.speed}
        self._real = real
        self._began_t, self._began_s, self.phone = _phone(wish, before, gap_s)
        self._clock = clock or _clock(wish)
        self._offset_s = self.phone.now_s
        self._hottest_c, self._busy_s = self._battery_c, 0.0
        self._told: tuple[Reading, Reading] | None = None
        self._reading: Reading | None = None

    def now(self) -> float:
        return self._began_t + self._began_s + self._clock.now_s()

    def monotonic(self) -> float:
        return self._clock.now_s()

    def boottime(self) -> float:
        return self._clock.now_s()

    def processor(self) -> float:
        return self._busy_s

    def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    def worked(self, busy_s: float, *, piece: bool, threads: int) -> float:
        if self.wish.piece_s is not None:
            busy_s = self.wish.piece_s if piece else 0.0
            self._idle()
        else:
            self._idle(busy_s)
        took_s = self._work(busy_s, self.wish.threads or threads)
        self._busy_s += took_s
        if self.wish.piece_s is not None:
            self._clock.catch_up(took_s)
        elif took_s > busy_s:
            self._clock.sleep(took_s - busy_s)
        self._look()
        return took_s

    def read(self) -> Reading:
        self._idle()
        self._look()
        told, real = self.phone.read(), self._real.read()
        if self._reading is None or self._told is None or self._told[0] is not told or self._told[1] is not real:
            self._told, self._reading = (told, real), _together(told, real)
        return self._reading

    def memory(self) -> dict[str, Any]:
        """``battery_c`` is the truth and ``hottest_battery_c`` its maximum since the last call."""
        hottest_c, self._hottest_c = self._hottest_c, self._battery_c
        told: dict[str, Any] = {
            "began_t": round(self._began_t, 3),
            "at_s": round(self._began_s + self.phone.now_s - self._offset_s, 3),
        }
        if isinstance(self.phone, SimulatedPhone):
            truth = self.phone.truth
            told |= {
                "nodes_c": {name: round(getattr(truth, f"{name}_c"), 4) for name in NODES},
                "percent": round(truth.battery_percent, 4),
                "ambient_c": round(truth.ambient_c, 2),
            }
        if hottest_c is not None and self._battery_c is not None:
            told |= {"battery_c": round(self._battery_c, 3), "hottest_battery_c": round(hottest_c, 3)}
        return {"sim": told}

    def _work(self, busy_s: float, threads: int) -> float:
        """Seconds at full speed on so many threads; what slows a phone down is heat and being in the background."""
        if isinstance(self.phone, SimulatedPhone):
            return self.phone.work(busy_s * self.phone.profile.rate(threads), threads=threads)
        return self.phone.work(busy_s)

    def _idle(self, but_s: float = 0.0) -> None:
        """Lets the phone rest until now, or until the work of the last seconds began."""
        rest_s = self._clock.now_s() + self._offset_s - but_s - self.phone.now_s
        if rest_s > 0:
            self.phone.advance(rest_s, duty=0.0)

    def _look(self) -> None:
        battery_c = self._battery_c
        if battery_c is not None and (self._hottest_c is None or battery_c > self._hottest_c):
            self._hottest_c = battery_c

    @property
    def _battery_c(self) -> float | None:
        if isinstance(self.phone, SimulatedPhone):
            return self.phone.network.temperature("battery")
        return self.phone.truth.get("battery_c")


def _clock(wish: DeviceWish) -> SimClock:
    """Where a piece of work takes what the wish says, the processor's time does not count."""
    return SimClock(wish.speed) if wish.piece_s is None else SimClock(wish.speed, busy=lambda: 0.0)


def _phone(
    wish: DeviceWish, before: dict[str, Any] | None, gap_s: float
) -> tuple[float, float, SimulatedPhone | ReplayPhone]:
    """When the simulation began (unix seconds), how far it is, and the phone that waits there."""
    if before is None:
        began_t = _begin_t(wish)
        return began_t, 0.0, wish.phone(start_t=began_t)
    began_t, at_s, gap_s = before["began_t"], before["at_s"], min(max(0.0, gap_s), LONGEST_GAP_S)
    phone = wish.phone(start_t=began_t, at_s=at_s, start_c=before.get("nodes_c"), percent=before.get("percent"))
    phone.advance(gap_s, duty=0.0)
    return began_t, at_s + gap_s, phone


def _begin_t(wish: DeviceWish) -> float:
    if wish.start_minute is None:
        return time.time()
    midnight = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return (midnight + timedelta(minutes=wish.start_minute)).timestamp()


def _together(told: Reading, real: Reading) -> Reading:
    known = {name: value for name in NOT_SIMULATED if (value := getattr(real, name)) is not None}
    sources = told.sources | dict.fromkeys(known, "this machine")
    unknown = {name: why for name, why in told.unknown.items() if name not in known}
    return dataclasses.replace(told, **known, sources=sources, unknown=unknown)
