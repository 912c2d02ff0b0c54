"""What a simulated phone is told of itself: temperatures with noise, in coarse steps, from polls that are late.

It sees a `Truth` and makes a `Reading` of it; how the truth comes about is not its business.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

from ondevice.device.readings import Reading

__all__ = ["NOT_SIMULATED", "SENSORS", "SensorKind", "SimulatedSensors", "Truth"]

_STATUS_STEPS_C = (-5.0, -3.0, 0.0, 3.0, 7.0, 10.0)  # of the battery against severe: status 1, 2, ...
_HEADROOM_C = 30.0  # headroom 0 lies this far below severe
_HEADROOM_PERIOD_S = 10.0
NOT_SIMULATED = ("rss_mb", "available_mb", "total_mb", "disk_free_mb")


@dataclass(frozen=True, kw_only=True)
class Truth:
    """One moment of a simulated phone. Degrees Celsius, watts (negative while charging), shares of 1."""

    cpu_big_c: float
    cpu_little_c: float
    package_c: float
    chassis_c: float
    battery_c: float
    ambient_c: float
    battery_percent: float
    plugged: bool
    full: bool
    from_battery_w: float
    freq_share: float
    screen_on: bool
    severe_battery_c: float

    @property
    def charging(self) -> str:
        """In the words of a `Reading`."""
        if self.full and self.plugged:
            return "full"
        if self.from_battery_w < 0:
            return "charging"
        return "not_charging" if self.plugged and self.from_battery_w == 0 else "discharging"

    @property
    def thermal_status(self) -> int:
        """As Android counts: 0 none ... 3 severe ... 6 shutdown."""
        return sum(self.battery_c >= self.severe_battery_c + step for step in _STATUS_STEPS_C)

    @property
    def headroom(self) -> float:
        """1.0 at severe."""
        return 1 + (self.battery_c - self.severe_battery_c) / _HEADROOM_C


@dataclass(frozen=True, kw_only=True)
class SensorKind:
    """How good the sensors are; ``lost`` names those that say nothing from the start."""

    noise_c: float = 0.3  # standard deviation
    battery_noise_c: float = 0.1
    battery_step_c: float = 1.0
    cpu_step_c: float = 0.4
    power_noise: float = 0.05
    battery_poll_s: tuple[float, float] = (15.0, 30.0)
    lost: frozenset[str] = frozenset()


Roll = Callable[[float], float]  # noise of a standard deviation


def _battery_values(truth: Truth, kind: SensorKind, roll: Roll) -> dict[str, Any]:
    return {
        "battery_c": _stepped(truth.battery_c + roll(kind.battery_noise_c), kind.battery_step_c),
        "battery_percent": float(round(truth.battery_percent)),
        "plugged": truth.plugged,
        "charging": truth.charging,
        "power_w": round(truth.from_battery_w * (1 + roll(kind.power_noise)), 3),
    }


def _android_values(truth: Truth, roll: Roll) -> dict[str, Any]:
    return {"thermal_status": truth.thermal_status, "headroom": round(truth.headroom + roll(0.003), 3)}


def _instant_values(truth: Truth, kind: SensorKind, roll: Roll) -> dict[str, Any]:
    return {
        "cpu_c": _stepped(max(truth.cpu_big_c, truth.cpu_little_c) + roll(kind.noise_c), kind.cpu_step_c),
        "skin_c": round(truth.chassis_c + roll(kind.noise_c), 2),
        "freq_share": round(truth.freq_share, 2),
        "screen_on": truth.screen_on,
    }


SENSORS = (
    *("battery_c", "battery_percent", "plugged", "charging", "power_w", "thermal_status", "headroom"),
    *("cpu_c", "skin_c", "freq_share", "screen_on"),
)


class SimulatedSensors:
    """Remembers the last answer of each slow source; `due_s` is when the next poll wants the truth."""

    def __init__(self, kind: SensorKind, *, seed: int) -> None:
        self.unknown: dict[str, str] = {}
        self.due_s = 0.0
        self._kind, self._dice = kind, random.Random(seed)
        self._lost = set(kind.lost)
        self._slow: dict[str, tuple[Any, float]] = {}  # value, when
        self._battery_due_s = self._android_due_s = 0.0

    def lose(self, name: str, *, lost: bool = True) -> None:
        """From now on it says nothing, or speaks again."""
        if name not in SENSORS:
            raise ValueError(f"{name!r} is not a simulated sensor: {', '.join(SENSORS)}")
        if lost:
            self._lost.add(name)
        else:
            self._lost.discard(name)

    def copy(self) -> SimulatedSensors:
        """The same sensors, going their own way from here."""
        other = copy(self)
        other._dice, other._lost, other._slow = copy(self._dice), set(self._lost), dict(self._slow)
        return other

    def poll(self, now_s: float, truth: Truth) -> None:
        """Asks the slow sources that are due."""
        if now_s >= self._battery_due_s - 1e-9:
            self._battery_due_s = now_s + self._dice.uniform(*self._kind.battery_poll_s)
            self._keep(now_s, _battery_values(truth, self._kind, self._roll))
        if now_s >= self._android_due_s - 1e-9:
            self._android_due_s = now_s + _HEADROOM_PERIOD_S
            self._keep(now_s, _android_values(truth, self._roll))
        self.due_s = min(self._battery_due_s, self._android_due_s)

    def _keep(self, now_s: float, values: dict[str, Any]) -> None:
        self._slow.update({name: (value, now_s) for name, value in values.items()})

    def reading(self, t: float, now_s: float, truth: Truth) -> Reading:
        """The reading at ``t`` unix seconds."""
        instant = _instant_values(truth, self._kind, self._roll)
        known = {**{name: (value, now_s) for name, value in instant.items()}, **self._slow}
        known = {name: pair for name, pair in known.items() if name not in self._lost}
        self.unknown = dict.fromkeys(self._lost, "lost, as the simulation was asked to")
        self.unknown.update(dict.fromkeys(NOT_SIMULATED, "not simulated"))
        return Reading(
            t=t,
            **{name: value for name, (value, _) in known.items()},
            sources=dict.fromkeys(known, "simulated"),
            ages_s={name: round(now_s - at_s, 3) for name, (_, at_s) in known.items()},
            unknown=dict(self.unknown),
        )

    def _roll(self, deviation: float) -> float:
        return self._dice.gauss(0.0, deviation) if deviation else 0.0


def _stepped(value: float, step: float) -> float:
    return round(round(value / step) * step, 3) if step else value
