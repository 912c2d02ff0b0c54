"""The governor in a loop with a body that is not the one it believes in: heat, noise, coarse and late sensors."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp
from typing import Any

import pytest

from ondevice.device.readings import Reading
from ondevice.governor.decide import decide
from ondevice.governor.history import begin, observe
from ondevice.governor.order import Order, is_change
from ondevice.run.schema import Limits

LIMIT_C = 39.0
WARMED_S = 60.0
LIMITS = Limits(preset="balanced", max_battery_c=LIMIT_C, max_cpu_c=110.0)


@dataclass
class Plant:
    """First order, with a lag between work and sensor; whole degrees, polled every 15 to 30 s. With ``clock`` the
    frequency can be read; cores that work all the time lose a ``slowed`` share of it, and of power more."""

    ambient_c: float
    gain_c: float  # of full work, in the end
    tau_s: float = 250.0
    lag_s: float = 11.0
    clock: bool = False
    slowed: float = 0.0
    exponent: float = 2.5
    busy: float = 0.0
    seed: int = 0
    start_c: float | None = None
    t: float = 1.7e9
    heat: float = 0.0
    over_c: float = 0.0
    over_s: float = 0.0
    worked_s: float = 0.0
    sample: tuple[float, float] = (0.0, 0.0)
    dice: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.dice, self.due_t = random.Random(self.seed), self.t
        self.temp_c = self.ambient_c if self.start_c is None else self.start_c
        self.poll()

    def poll(self) -> None:
        if self.t >= self.due_t:
            self.sample = (float(round(self.temp_c + self.dice.gauss(0, 0.1))), self.t)
            self.due_t = self.t + self.dice.uniform(15, 30)

    def advance(self, seconds: float, load: float) -> None:
        self.worked_s += seconds * load
        while seconds > 1e-9:
            dt = min(0.5, seconds)
            self.busy += (load - self.busy) * (1 - exp(-dt / WARMED_S))
            self.heat += (load * self.freq_share**self.exponent - self.heat) * (1 - exp(-dt / self.lag_s))
            goal = self.ambient_c + self.gain_c * self.heat
            self.temp_c += (goal - self.temp_c) * (1 - exp(-dt / self.tau_s))
            self.t, seconds = self.t + dt, seconds - dt
            self.over_c = max(self.over_c, self.temp_c - LIMIT_C)
            self.over_s += dt * (self.temp_c > LIMIT_C)
            self.poll()

    def reading(self) -> Reading:
        celsius, at_t = self.sample
        return Reading(
            t=self.t,
            battery_c=celsius,
            plugged=True,
            battery_percent=80.0,
            freq_share=round(self.freq_share, 2) if self.clock else None,
            ages_s={"battery_c": self.t - at_t},
        )

    @property
    def freq_share(self) -> float:
        return 1.0 - self.slowed * self.busy


def loop(plant: Plant, piece_s: float, hours: float, **limits: Any) -> list[float]:
    """Runs the loop's rule; when orders changed."""
    history, end_t, changes = begin(handheld=True, battery=True), plant.t + 3600 * hours, []
    told: Order | None = None
    found, history = decide(plant.reading(), LIMITS, history, plant.t)
    while plant.t < end_t:
        if found.kind == "run":
            plant.advance(piece_s, 1.0)
            history = observe(history, piece_s, plant.t)
        else:
            plant.advance(5.0, 0.0)
        found, history = decide(plant.reading(), LIMITS, history, plant.t)
        if is_change(told, found):
            told = found
            changes.append(plant.t)
        if found.kind == "run":
            spread_s = piece_s * (1 - found.duty) / max(found.duty, 0.005)
            plant.advance(spread_s if found.left_s is None else found.left_s, 0.0)
    return changes


def best_share(plant: Plant) -> float:
    return min(1.0, (LIMIT_C - plant.ambient_c) / plant.gain_c)


@pytest.mark.parametrize("piece_s", [0.05, 2.0, 25.0])
@pytest.mark.parametrize("gain_c", [28.0, 40.0, 52.0])
def test_it_keeps_the_limit_and_does_the_work(gain_c: float, piece_s: float) -> None:
    hours = 0.5 if piece_s < 1 else 2.0
    plant = Plant(ambient_c=26.0, gain_c=gain_c, seed=int(gain_c))
    changes = loop(plant, piece_s, hours)
    assert plant.over_c <= 0.5
    assert plant.over_s <= 10.0 * hours
    ripple = 0.8 if piece_s > 20 else 0.92  # a long piece must end under the limit, so its mean lies lower
    assert plant.worked_s >= ripple * best_share(plant) * 3600 * hours
    steady = [t for t in changes if t > plant.t - 1800 * hours]
    assert len(steady) <= 3 * hours


@pytest.mark.parametrize("clock", [False, True])
@pytest.mark.parametrize(("tau_s", "lag_s", "gain_c"), [(175.0, 8.0, 40.0), (325.0, 15.0, 40.0), (850.0, 100.0, 30.0)])
def test_a_body_with_other_times_is_kept_as_well(tau_s: float, lag_s: float, gain_c: float, clock: bool) -> None:
    plant = Plant(ambient_c=26.0, gain_c=gain_c, tau_s=tau_s, lag_s=lag_s, seed=5, clock=clock)
    loop(plant, 2.0, 2.0)
    assert plant.over_c <= 0.5 and plant.over_s <= 20.0
    assert plant.worked_s >= 0.9 * best_share(plant) * 7200


@pytest.mark.parametrize("exponent", [1.5, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_slowed_cores_are_no_surprise_where_their_clock_is_seen(seed: int, exponent: float) -> None:
    """Working all the time at first it warms less for each second than later; nobody knows how power follows the
    clock."""
    plant = Plant(ambient_c=15.0, gain_c=45.0, seed=seed, clock=True, slowed=0.15, exponent=exponent)
    loop(plant, 2.0, 1.0)
    assert plant.over_c <= 0.5 and plant.over_s <= 10.0
    assert plant.worked_s >= 0.9 * best_share(plant) * 3600


@pytest.mark.parametrize("clock", [False, True])
def test_a_warming_day_is_followed(clock: bool) -> None:
    plant = Plant(ambient_c=20.0, gain_c=40.0, seed=2, clock=clock)
    history = begin(handheld=True, battery=True)
    for _ in range(3600):
        plant.ambient_c += 14.0 / 3600
        found, history = decide(plant.reading(), LIMITS, history, plant.t)
        if found.kind == "run":
            plant.advance(2.0, 1.0)
            history = observe(history, 2.0, plant.t)
            plant.advance(2.0 * (1 - found.duty) / max(found.duty, 0.005), 0.0)
        else:
            plant.advance(5.0, 0.0)
    assert plant.over_c <= 0.5 and plant.over_s <= 10.0


def test_where_no_work_is_possible_none_is_done() -> None:
    plant = Plant(ambient_c=39.5, gain_c=40.0, seed=4)
    loop(plant, 2.0, 1.0)
    assert plant.worked_s <= 40.0


def test_it_begins_without_a_bump() -> None:
    plant = Plant(ambient_c=26.0, gain_c=40.0, seed=3, start_c=38.4)
    loop(plant, 2.0, 0.5)
    assert plant.over_c <= 0.5 and plant.over_s <= 10.0


@pytest.mark.parametrize("name", ["battery_c", "headroom"])
def test_whatever_happened_a_hotter_reading_hardly_ever_gets_more_duty(name: str) -> None:
    """An unlikely sample also makes the one who hears it doubt his model, which is worth a few points of duty."""
    plant, dice = Plant(ambient_c=26.0, gain_c=40.0, seed=6), random.Random(6)
    history = begin(handheld=True, battery=True)
    scale = {"battery_c": (1.0, 0.0), "headroom": (1 / 30.0, 1 - 45 / 30.0)}[name]

    def felt(celsius: float) -> Reading:
        value = round(celsius * scale[0] + scale[1], 3)
        return dataclasses.replace(plant.reading(), t=plant.t, ages_s={}, **{name: value})

    for k in range(240):
        found, history = decide(felt(round(plant.temp_c)), LIMITS, history, plant.t)
        plant.advance(2.0, 1.0)
        history = observe(history, 2.0, plant.t)
        plant.advance(min(60.0, 2.0 * (1 - found.duty) / max(found.duty, 0.02)) + 20.0 * dice.random() * (k > 120), 0.0)
        if k % 8 == 0:
            orders = [decide(felt(float(c)), LIMITS, history, plant.t)[0] for c in (30, 35, 36, 37, 38, 39, 41)]
            duties = [order.duty if order.kind == "run" else 0.0 for order in orders]
            assert all(hotter <= cooler + 0.06 for cooler, hotter in pairwise(duties)), (k, duties)
            assert duties[-1] <= min(duties[:3])
