"""Rests between tokens: none on a cool device, until it is cool on a hot one, and never for a client that left."""

from __future__ import annotations

from typing import Any

import pytest

from ondevice.device.readings import Reading
from ondevice.infer.manners import Manners
from ondevice.run.schema import Limits


class Phone:
    """A phone whose clock moves when somebody sleeps or works, and which cools by a degree in ten seconds of sleep."""

    handheld, look_s, simulated = True, 0.2, None

    def __init__(self, battery_c: float) -> None:
        self.t, self.battery_c, self.slept_s, self.percent = 1e9, battery_c, 0.0, 80.0

    def now(self) -> float:
        return self.t

    monotonic = boottime = now

    def sleep(self, seconds: float) -> None:
        self.t += seconds
        self.slept_s += seconds
        self.battery_c = max(24.0, self.battery_c - seconds / 10)

    def worked(self, busy_s: float, *, piece: bool, threads: int) -> float:
        return busy_s

    def memory(self) -> dict[str, Any]:
        return {}

    def read(self) -> Reading:
        return Reading(t=self.t, battery_c=self.battery_c, battery_percent=self.percent, plugged=False)


def worked(manners: Manners, phone: Phone, seconds: float) -> None:
    phone.t += seconds
    manners.pause()


def test_a_cool_phone_writes_nearly_all_the_time() -> None:
    phone = Phone(25.0)
    manners = Manners(phone, Limits())
    for _ in range(400):
        worked(manners, phone, 0.1)
    assert phone.slept_s < 0.1 * 40 + 2


def test_a_hot_phone_rests_until_it_is_cool() -> None:
    phone, told = Phone(44.0), []
    manners = Manners(phone, Limits(), tell=told.append)
    worked(manners, phone, 1.0)
    assert phone.battery_c <= 38.0 and phone.slept_s >= 60
    assert len(told) == 2 and "44" in told[0]


def test_short_work_is_gathered_before_anybody_is_asked() -> None:
    phone = Phone(44.0)
    manners = Manners(phone, Limits())
    worked(manners, phone, 0.1)
    assert phone.slept_s == 0
    worked(manners, phone, 0.2)
    assert phone.slept_s > 60


def test_whoever_leaves_ends_the_rest() -> None:
    class Left(Exception):
        pass

    phone = Phone(50.0)
    manners = Manners(phone, Limits())

    def look() -> None:
        if phone.slept_s > 3:
            raise Left

    phone.t += 1.0
    with pytest.raises(Left):
        manners.pause(look)
    assert phone.slept_s < 5


def test_an_empty_battery_waits_unless_somebody_is_there() -> None:
    phone = Phone(25.0)
    phone.percent = 10.0
    assert Manners(phone, Limits()).look().kind == "wait"
    assert Manners(phone, Limits(battery_floor_percent=0)).look().kind == "run"


def test_an_answer_that_somebody_waits_for_is_slowed_by_nothing_but_heat() -> None:
    limits = Limits(duty_max=0.25)
    for attended, least_s in ((False, 20.0), (True, 0.0)):
        phone = Phone(25.0)
        manners = Manners(phone, limits, attended=attended)
        for _ in range(40):
            worked(manners, phone, 0.5)
        assert phone.slept_s >= least_s and (not attended or phone.slept_s == 0)
    hot = Phone(44.0)
    worked(Manners(hot, limits, attended=True), hot, 1.0)
    assert hot.slept_s > 60
