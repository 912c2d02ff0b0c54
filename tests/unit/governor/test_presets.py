"""Presets: who gets which, what a written key does, and that every value has a reason a person can read."""

from __future__ import annotations

import dataclasses

import pytest

from ondevice.errors import UsageError
from ondevice.governor.presets import PRESETS, Policy, check, preset_name, reasons, resolve
from ondevice.run.schema import Limits


def test_auto_is_balanced_in_the_hand_and_desk_on_the_table() -> None:
    assert preset_name(Limits(), handheld=True) == "balanced"
    assert preset_name(Limits(), handheld=False) == "desk"
    assert preset_name(Limits(preset="gentle"), handheld=False) == "gentle"


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_every_hole(name: str) -> None:
    policy = resolve(Limits(preset=name), handheld=True)
    assert all(getattr(policy, field.name) is not None for field in dataclasses.fields(Policy))
    assert policy.resume_battery_c <= policy.max_battery_c
    assert policy.charge_target_percent >= policy.battery_floor_percent


def test_a_written_key_wins_and_the_rest_stays() -> None:
    policy = resolve(Limits(preset="gentle", duty_max=0.9, plugged_only=True), handheld=True)
    assert policy.duty_max == 0.9 and policy.plugged_only
    assert policy.max_battery_c == PRESETS["gentle"].policy.max_battery_c


def test_what_goes_with_the_warmest_battery_goes_along() -> None:
    policy = resolve(Limits(max_battery_c=33.0), handheld=True)
    assert policy.resume_battery_c < 33.0
    assert policy.max_headroom == pytest.approx(0.6)
    written = resolve(Limits(max_battery_c=33.0, resume_battery_c=30.5, max_headroom=0.9), handheld=True)
    assert written.resume_battery_c == 30.5 and written.max_headroom == 0.9


def test_nobody_resumes_above_the_limit() -> None:
    assert resolve(Limits(max_battery_c=35.0, resume_battery_c=50.0), handheld=True).resume_battery_c == 35.0


def test_gentle_is_gentler_than_balanced() -> None:
    gentle, balanced = PRESETS["gentle"].policy, PRESETS["balanced"].policy
    assert gentle.max_battery_c < balanced.max_battery_c
    assert gentle.duty_max < balanced.duty_max
    assert gentle.battery_floor_percent > balanced.battery_floor_percent


def test_reasons_name_the_preset_and_what_was_written() -> None:
    said = reasons(Limits(max_battery_c=38.5), handheld=True)
    assert said["preset"].startswith("balanced") and "chosen for this device" in said["preset"]
    assert said["max_battery_c"] == "38.5: written by you"
    assert said["hours"] == "always" and said["plugged_only"] == "no"


def test_bad_hours_are_found_before_the_night() -> None:
    check(Limits(hours="22:30-06:45"))
    with pytest.raises(UsageError):
        check(Limits(hours="whenever"))
