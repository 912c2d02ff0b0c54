"""Phones, weathers and sensors in which the bench of governors runs its policies.

Every scenario has a seed; those from `HELD_OUT` on are for reporting only, nothing was ever tuned on them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from ondevice.device.simulate import Event, SimulatedPhone
from ondevice.device.simulate_profile import load_profile
from ondevice.device.simulate_sensors import SensorKind

__all__ = ["HEAT_SENSORS", "Scenario", "all_scenarios", "held_out", "quick_scenarios"]

HELD_OUT = 1000

# Android's status and headroom come from one call, so they go together. Speed is told by the step time in any case.
HEAT_SENSORS = {
    "battery": ("battery_c",),
    "cpu": ("cpu_c",),
    "skin": ("skin_c",),
    "android": ("headroom", "thermal_status"),
}


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One phone for some hours. ``ambient_c`` rises or falls evenly to ``last_ambient_c``."""

    name: str
    ambient_c: float = 25.0
    last_ambient_c: float | None = None
    micro_batch_s: float = 2.0
    hours: float = 2.0
    seed: int = 0
    wrong: float = 0.0  # share by which the phone's parameters differ from its profile
    profile: str = "galaxy-s25plus"
    sensors: frozenset[str] = frozenset(HEAT_SENSORS)
    lost_at_s: tuple[float, str] | None = None  # a sensor that goes and comes back ten minutes later
    plugged: bool = True
    battery_percent: float = 100.0

    @property
    def until_s(self) -> float:
        """Seconds it lasts."""
        return self.hours * 3600

    @property
    def steady(self) -> bool:
        """Whether its second half changes nothing."""
        return self.last_ambient_c is None and self.lost_at_s is None

    def phone(self) -> SimulatedPhone:
        """At its start, long idle."""
        profile = load_profile(self.profile)
        if self.wrong:
            profile = profile.without_certainty(self.wrong, seed=self.seed)
        lost = {name for group in HEAT_SENSORS.keys() - self.sensors for name in HEAT_SENSORS[group]}
        if not self.sensors:
            lost.add("freq_share")
        events: list[Event] = []
        if self.lost_at_s is not None:
            at_s, group = self.lost_at_s
            events += [Event(at_s, "lose", name) for name in HEAT_SENSORS[group]]
            events += [Event(at_s + 600, "find", name) for name in HEAT_SENSORS[group]]
        return SimulatedPhone(
            profile,
            ambient_c=self._ambient(),
            plugged=self.plugged,
            battery_percent=self.battery_percent,
            seed=self.seed,
            sensors=SensorKind(lost=frozenset(lost)),
            events=events,
        )

    def _ambient(self) -> float | Callable[[float], float]:
        first, last, until_s = self.ambient_c, self.last_ambient_c, self.until_s
        if last is None:
            return first
        return lambda now_s: first + (last - first) * min(1.0, now_s / until_s)


def held_out(scenarios: Iterable[Scenario]) -> list[Scenario]:
    """The same with dice, and so sensors and wrong parameters, that nobody has seen while tuning."""
    return [replace(scenario, seed=HELD_OUT + 7 * scenario.seed) for scenario in scenarios]


def quick_scenarios() -> list[Scenario]:
    """One of each kind, an hour each."""
    base = Scenario(name="", hours=1.0)
    return [
        replace(base, name="15 C", ambient_c=15, micro_batch_s=25),
        replace(base, name="25 C, 0.05 s", hours=0.2, micro_batch_s=0.05),
        replace(base, name="38 C", ambient_c=38),
        replace(base, name="20 to 38 C", ambient_c=20, last_ambient_c=38),
        replace(base, name="30 C, wrong by 30 %", ambient_c=30, wrong=0.3, seed=1),
        replace(base, name="28 C, cpu only", ambient_c=28, sensors=frozenset({"cpu"})),
        replace(base, name="28 C, no heat sensor", ambient_c=28, sensors=frozenset()),
    ]


def all_scenarios() -> list[Scenario]:
    """Every ambient and micro-batch, ramps, wrong parameters, every set of sensors, other phones."""
    return [*_ambients(), *_ramps(), *_wrong(), *_sensors(), *_others()]


def _ambients() -> list[Scenario]:
    found = [
        Scenario(name=f"{ambient} C, {w:g} s", ambient_c=ambient, micro_batch_s=w)
        for w, ambient in itertools.product((2.0, 25.0), (15, 20, 25, 30, 35, 38))
    ]
    return found + [
        Scenario(name=f"{ambient} C, 0.05 s", ambient_c=ambient, micro_batch_s=0.05, hours=1.0)
        for ambient in (15, 25, 38)
    ]


def _ramps() -> list[Scenario]:
    return [
        Scenario(name=f"{a} to {b} C, {w:g} s", ambient_c=a, last_ambient_c=b, micro_batch_s=w, hours=3.0)
        for (a, b), w in itertools.product(((18, 38), (38, 18)), (2.0, 25.0))
    ]


def _wrong() -> list[Scenario]:
    return [
        Scenario(name=f"{ambient} C, wrong, {number}", ambient_c=ambient, wrong=0.3, seed=number)
        for ambient, number in itertools.product((22, 32), (1, 2, 3, 4))
    ]


def _sensors() -> list[Scenario]:
    groups = sorted(HEAT_SENSORS)
    sets = [frozenset(some) for size in range(2) for some in itertools.combinations(groups, size)]
    found = [
        Scenario(name=f"{ambient} C, {'+'.join(sorted(some)) or 'no heat sensor'}", ambient_c=ambient, sensors=some)
        for some, ambient in itertools.product(sets, (15, 28, 35))
    ]
    found += [Scenario(name=f"28 C, no {group}", ambient_c=28, sensors=frozenset(groups) - {group}) for group in groups]
    found += [
        Scenario(
            name=f"{profile}, {group} only, {number}",
            ambient_c=28,
            profile=profile,
            wrong=0.3,
            seed=number,
            sensors=frozenset({group}),
        )
        for profile, group, number in itertools.product(("galaxy-s25plus", "midrange"), ("cpu", "skin"), (1, 2))
    ]
    return [
        *found,
        *(Scenario(name=f"28 C, {group} lost", ambient_c=28, lost_at_s=(1200, group)) for group in ("battery", "cpu")),
    ]


def _others() -> list[Scenario]:
    return [
        Scenario(name="28 C, charging", ambient_c=28, battery_percent=40),
        Scenario(name="28 C, charging, cpu", ambient_c=28, battery_percent=40, sensors=frozenset({"cpu"})),
        Scenario(name="28 C, unplugged", ambient_c=28, plugged=False),
        Scenario(name="midrange, 28 C", ambient_c=28, profile="midrange"),
        Scenario(name="midrange, 35 C", ambient_c=35, profile="midrange"),
        Scenario(name="midrange, 35 C, 25 s", ambient_c=35, profile="midrange", micro_batch_s=25.0),
    ]
