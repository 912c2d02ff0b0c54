"""The battery's charge: a floor, work on the charger only, and chargers too weak to keep up.

Says in a sentence why to wait; empty where nothing speaks against work. Knows no heat and no hours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ondevice.device.readings import Reading
from ondevice.governor.presets import Policy

__all__ = ["Power", "is_powered", "judged"]

FALLING_PERCENT = 2.0  # below the highest charge since the plug went in
RISING_PERCENT = 2.0


@dataclass(frozen=True, kw_only=True)
class Power:
    """``high``/``low``: charge since the plug went in, and since it was found falling. ``waiting``: below the floor."""

    plugged: bool | None = None
    high_percent: float | None = None
    low_percent: float | None = None
    falling: bool = False
    waiting: bool = False


def judged(power: Power, reading: Reading, policy: Policy, *, battery: bool) -> tuple[Power, str]:
    """The new state and why to wait. ``battery``: the device has one, whether or not it can be read."""
    if not battery and reading.battery_percent is None:
        return power, ""
    power = _followed(power, reading)
    powered, percent = is_powered(power, reading), reading.battery_percent
    if policy.plugged_only and not powered:
        return power, _not_powered(power, reading)
    if percent is None:
        return power, ""
    wanted = max(policy.charge_target_percent, policy.battery_floor_percent)
    if percent < policy.battery_floor_percent and not (powered and not power.waiting):
        power = replace(power, waiting=True)
    elif percent >= wanted:
        power = replace(power, waiting=False)
    if not power.waiting:
        return power, ""
    floor = policy.battery_floor_percent
    return power, f"Waiting for the charger: {percent:.0f} % left, floor {floor:g}, goes on at {wanted:g}."


def is_powered(power: Power, reading: Reading) -> bool | None:
    """Plugged in and not falling all the same; None where nobody knows."""
    if reading.plugged is None:
        return None
    return reading.plugged and not power.falling


def _followed(power: Power, reading: Reading) -> Power:
    percent = reading.battery_percent
    if reading.plugged is None or percent is None:
        return power
    if not reading.plugged or not power.plugged or power.high_percent is None:
        return replace(power, plugged=reading.plugged, high_percent=percent, low_percent=percent, falling=False)
    low = percent if power.low_percent is None else min(power.low_percent, percent)
    if power.falling:
        risen = percent >= low + RISING_PERCENT
        return replace(power, falling=not risen, low_percent=low, high_percent=percent if risen else power.high_percent)
    high = max(power.high_percent, percent)
    needed = 1.0 if reading.charging == "discharging" else FALLING_PERCENT
    return replace(power, high_percent=high, low_percent=percent, falling=percent <= high - needed)


def _not_powered(power: Power, reading: Reading) -> str:
    if reading.plugged is None:
        return "Waiting: nobody can tell whether the charger is in; limits.plugged_only = false would not ask."
    if power.falling and reading.battery_percent is not None:
        return f"Waiting: the charger gives less than is used ({reading.battery_percent:.0f} % and falling)."
    return "Waiting for the charger: this run works only while plugged in."
