"""The battery by the kernel's power supplies or by psutil, and the rules that every source of battery values shares.

Percent, degrees Celsius, and watts drawn from the battery (negative while it charges).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ondevice.device.answer import Answer

__all__ = ["CHARGING", "NAMES", "NO_BATTERY", "battery_celsius", "from_psutil", "from_sysfs", "percent", "watts_drawn"]

NAMES = ("battery_percent", "plugged", "charging", "battery_c", "power_w")
NO_BATTERY = "no battery found"
CHARGING = {
    "CHARGING": "charging",
    "DISCHARGING": "discharging",
    "FULL": "full",
    "NOT_CHARGING": "not_charging",
}
_SOURCE = "power_supply"

_MILLIAMPERES_BELOW = 20_000
_MOST_DRAWN_W, _MOST_CHARGED_W = 60.0, 240.0  # a laptop at full load; the largest charger there is
_AT_REST_W = 0.5
_VOLTS = (2.0, 30.0)


def percent(value: float | None) -> float | None:
    """A charge of 0..100, or None."""
    return round(value, 1) if value is not None and 0 <= value <= 100 else None


def battery_celsius(value: float | None) -> float | None:
    """Degrees, or None for what no battery has. Exactly 0 is what devices without the sensor say."""
    return round(value, 1) if value is not None and value != 0 and -30 <= value <= 90 else None


def volts(value: float) -> float:
    """A voltage, given in uV, mV or V. Raises LookupError where no unit makes sense."""
    for unit in (1e6, 1e3, 1.0):
        if _VOLTS[0] <= value / unit <= _VOLTS[1]:
            return value / unit
    raise LookupError(f"the voltage makes no sense: {value:g}")


def watts_drawn(current: float, voltage: float, charging: str | None, *, most_drawn_w: float = _MOST_DRAWN_W) -> float:
    """Watts out of the battery from a current in uA or mA and a voltage in any unit; negative while it charges.

    Less than 20,000 is taken for mA, because a device at work draws more than 20 mA; for uA where that would be more
    power than ``most_drawn_w`` or any charger has. The sign differs between vendors, so ``charging`` gives the
    direction, and a battery that is full or held has none.
    Raises LookupError where nothing of this makes sense.
    """
    most_w = _MOST_CHARGED_W if charging == "charging" else most_drawn_w
    volt, size = volts(voltage), abs(current)
    watts = [volt * size * unit for unit in ((1e-3, 1e-6) if size < _MILLIAMPERES_BELOW else (1e-6,))]
    plausible = [value for value in watts if value <= most_w]
    if not plausible:
        raise LookupError(f"the current makes no sense: {current:g}")
    return directed(plausible[0], charging)


def directed(watts: float, charging: str | None) -> float:
    """Positive when discharging. Raises LookupError where the direction is not known and the power not small."""
    if charging in ("charging", "discharging"):
        return round(watts if charging == "discharging" else -watts, 2)
    if watts <= _AT_REST_W:
        return 0.0
    raise LookupError(f"a current flows, but the battery is {(charging or 'in an unknown state').replace('_', ' ')}")


class _Supply:
    """One folder of /sys/class/power_supply."""

    def __init__(self, folder: Path) -> None:
        self.name, self._folder = folder.name, folder
        self.type = self.word("type")

    def word(self, name: str) -> str:
        try:
            return (self._folder / name).read_text().strip()
        except OSError:  # a driver that does not know answers ENODATA
            return ""

    def number(self, name: str) -> float | None:
        try:
            value = float(self.word(name))
        except ValueError:
            return None
        return value if math.isfinite(value) else None

    @property
    def is_battery(self) -> bool:
        """Not an empty bay."""
        return self.type == "Battery" and self.number("present") != 0

    @property
    def charging(self) -> str | None:
        return CHARGING.get(self.word("status").upper().replace(" ", "_"))

    @property
    def celsius(self) -> float | None:
        tenths = self.number("temp")
        return None if tenths is None else battery_celsius(tenths / 10)

    @property
    def full(self) -> float:
        """How much it holds, in a unit of its own; 1 where it does not tell."""
        return self.number("energy_full") or self.number("charge_full") or 1.0

    def watts(self) -> float:
        power, current, voltage = (self.number(name) for name in ("power_now", "current_now", "voltage_now"))
        if power is not None:
            return directed(abs(power) / 1e6, self.charging)
        if current is None or voltage is None:
            raise LookupError("the battery tells no current")
        return watts_drawn(current, voltage, self.charging)


def from_sysfs(sysfs: Path = Path("/sys")) -> Answer:
    """All batteries of the machine as one. Raises OSError where the system hides them, LookupError where none is."""
    folders = sorted((sysfs / "class/power_supply").iterdir())
    supplies = [supply for supply in map(_Supply, folders) if supply.word("scope") != "Device"]  # that of a mouse
    batteries = [supply for supply in supplies if supply.is_battery]
    if not batteries:
        raise LookupError(NO_BATTERY)
    # Android's own is called so; beside it stand its gauge and its charger, which would count it twice.
    batteries = [battery for battery in batteries if battery.name == "battery"] or batteries
    charging = _together([battery.charging for battery in batteries])
    unknown = dict.fromkeys(NAMES, "the battery does not tell it")
    values = {
        "battery_percent": _percent(batteries),
        "plugged": _plugged(supplies, charging),
        "charging": charging,
        "battery_c": max((battery.celsius for battery in batteries if battery.celsius is not None), default=None),
        "power_w": _watts(batteries, unknown),
    }
    return Answer.of(_SOURCE, values, unknown)


def _percent(batteries: Sequence[_Supply]) -> float | None:
    charges = [(percent(battery.number("capacity")), battery.full) for battery in batteries]
    known = [(charge, full) for charge, full in charges if charge is not None]
    return percent(sum(charge * full for charge, full in known) / sum(full for _, full in known)) if known else None


def _plugged(supplies: Sequence[_Supply], charging: str | None) -> bool | None:
    """By the chargers; where none is listed, by what the battery does."""
    chargers = [supply.number("online") for supply in supplies if supply.type != "Battery"]
    if any(chargers):
        return True
    if 0.0 in chargers or charging == "discharging":
        return False
    return True if charging == "charging" else None


def _together(states: Sequence[str | None]) -> str | None:
    """Of several batteries one works and the others wait."""
    for state in ("discharging", "charging", "not_charging", "full"):
        if state in states:
            return state
    return None


def _watts(batteries: Sequence[_Supply], unknown: dict[str, str]) -> float | None:
    try:
        return round(sum(battery.watts() for battery in batteries), 2)
    except LookupError as error:
        unknown["power_w"] = str(error)
        return None


def from_psutil() -> Answer:
    """What psutil knows, where there are no power supplies to read (macOS).

    Raises ImportError, LookupError, or what psutil raises.
    """
    import psutil

    battery = psutil.sensors_battery()
    if battery is None:
        raise LookupError(NO_BATTERY)
    values: dict[str, Any] = {"battery_percent": percent(float(battery.percent)), "plugged": battery.power_plugged}
    return Answer.of("psutil", values, dict.fromkeys(NAMES, "psutil does not tell it"))
