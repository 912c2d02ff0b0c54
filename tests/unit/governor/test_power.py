"""The charge: floors, the charger, and chargers that are too weak."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ondevice.device.readings import Reading
from ondevice.governor.power import Power, is_powered, judged
from ondevice.governor.presets import resolve
from ondevice.run.schema import Limits

POLICY = resolve(Limits(battery_floor_percent=30.0, charge_target_percent=40.0), handheld=True)
PLUGGED_ONLY = replace(POLICY, plugged_only=True)


def reading(percent: float | None, *, plugged: bool | None = False, charging: str | None = None) -> Reading:
    return Reading(t=0.0, battery_percent=percent, plugged=plugged, charging=charging)


def through(readings: list[Reading], policy: object = POLICY) -> list[str]:
    power, said = Power(), []
    for each in readings:
        power, why = judged(power, each, policy, battery=True)  # type: ignore[arg-type]
        said.append(why)
    return said


def test_below_the_floor_it_waits_until_the_target() -> None:
    said = through([reading(31), reading(29), reading(35, plugged=True), reading(39, plugged=True), reading(40)])
    assert [bool(why) for why in said] == [False, True, True, True, False]
    assert "floor 30" in said[1]


def test_on_a_charger_that_keeps_up_the_floor_does_not_matter() -> None:
    assert through([reading(20, plugged=True), reading(20.5, plugged=True)]) == ["", ""]


def test_plugged_but_falling_counts_as_unplugged() -> None:
    said = through([reading(p, plugged=True) for p in (80, 79, 78, 77, 78, 79)], PLUGGED_ONLY)
    assert [bool(why) for why in said] == [False, False, True, True, True, False]
    assert "less than is used" in said[2]


def test_a_risen_charge_ends_the_falling() -> None:
    power = Power()
    for percent in (80.0, 78.0, 77.0, 79.0):
        power, _ = judged(power, reading(percent, plugged=True), POLICY, battery=True)
    assert is_powered(power, reading(79.0, plugged=True))


def test_one_percent_less_is_falling_where_the_phone_says_it_discharges() -> None:
    said = through([reading(80, plugged=True), reading(79, plugged=True, charging="discharging")], PLUGGED_ONLY)
    assert said[0] == "" and said[1]


@pytest.mark.parametrize("state", ["full", "not_charging"])
def test_a_charge_limiter_is_no_fault(state: str) -> None:
    assert through([reading(80, plugged=True, charging=state)] * 3, PLUGGED_ONLY) == ["", "", ""]


def test_plugged_only_waits_where_nobody_can_tell() -> None:
    (why,) = through([reading(None, plugged=None)], PLUGGED_ONLY)
    assert "plugged_only" in why


def test_a_machine_without_a_battery_is_left_alone() -> None:
    assert judged(Power(), Reading(t=0.0), PLUGGED_ONLY, battery=False)[1] == ""


def test_pulling_the_plug_forgets_the_falling() -> None:
    power = Power()
    for each in (reading(80, plugged=True), reading(78, plugged=True), reading(78), reading(78, plugged=True)):
        power, _ = judged(power, each, PLUGGED_ONLY, battery=True)
    assert not power.falling
