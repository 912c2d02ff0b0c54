"""The battery's course of late, fitted at once, from samples in whole degrees."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import exp

import numpy as np
import pytest

from ondevice.governor import course as module
from ondevice.governor.course import Course, continued, told
from ondevice.governor.course_fit import Fit
from ondevice.governor.node import Node, Traits, advanced, first_seen
from ondevice.governor.signals import BATTERY

TRAITS = BATTERY.bodies[0]
STEP_S, PERIOD_S, BURST_S = 1.0, 60.0, 8.0


@dataclass(frozen=True)
class Body:
    """A body of one lag, warmed for some seconds of each minute; all exact."""

    tau_s: float = 240.0
    lag_s: float = 14.0
    warming: float = 0.15
    idle_c: float = 34.2
    slope: float = 0.0
    jump_c: float = 0.0  # of where it idles, after half an hour

    def course(self, seconds: int) -> list[float]:
        """The temperature at every second, from idling."""
        temp_c, heat, found = self.idle_c, 0.0, []
        for k in range(seconds):
            found.append(temp_c)
            settles, load = exp(-STEP_S / self.lag_s), self.load(k)
            idle_c = self.idle_c + self.slope * k + self.jump_c * (k > 1800)
            middle = load + (heat - load) * exp(-STEP_S / 2 / self.lag_s)
            temp_c += STEP_S * ((idle_c - temp_c) / self.tau_s + self.warming * middle)
            heat = load + (heat - load) * settles
        return found

    def load(self, k: int) -> float:
        """At full speed for the first minute, as a run begins."""
        return 1.0 if k < 60 or k % PERIOD_S < BURST_S else 0.0

    def loads(self, start: float, until: float) -> Iterator[tuple[float, float]]:
        """(seconds, load); both ends are whole seconds."""
        return ((STEP_S, self.load(k)) for k in range(round(start), round(until)))


def followed(
    body: Body, minutes: int, *, seed: int = 0, finer_c: list[float] | None = None
) -> tuple[Course, list[float]]:
    """Samples in whole degrees every 15 to 30 s, and of a finer scale every ten, with noise."""
    dice, true_c, found, pending = random.Random(seed), body.course(60 * minutes), None, []
    at = 0
    for k in range(60 * minutes):
        if finer_c is not None and k % 10 == 0:
            pending.append((float(k), round(finer_c[k] + dice.gauss(0.0, 0.09), 2)))
        if k == at:
            sample_c = float(round(true_c[k] + dice.gauss(0.0, 0.1)))
            found = continued(found, sample_c, float(k), 1.0, body.loads, tuple(pending))
            pending, at = [], k + dice.randint(15, 30)
    assert found is not None
    return found, true_c


def read(course: Course) -> tuple[Node, Traits]:
    told_ = told(course, TRAITS, 20.0, 1.0)
    assert told_ is not None
    return told_


def errors(body: Body, *, seeds: int = 4, finer: float | None = None) -> np.ndarray:
    """[seed, (error, deviation)] after 50 minutes; ``finer``: degrees by which the finer scale is off."""
    found = []
    for seed in range(seeds):
        scale = None if finer is None else [c + finer for c in body.course(3000)]
        course, true_c = followed(body, 50, seed=seed, finer_c=scale)
        node, _ = read(course)
        found.append((node.temp_c - true_c[round(course.t)], node.tt**0.5))
    return np.array(found)


@pytest.mark.parametrize(
    "body", [Body(), Body(tau_s=170.0, lag_s=9.0), Body(tau_s=900.0, lag_s=110.0, warming=0.04, idle_c=36.4)]
)
def test_whole_degrees_tell_a_battery_to_a_tenth(body: Body) -> None:
    found = errors(body)
    assert np.all(np.abs(found[:, 0]) < 0.2) and np.mean(np.abs(found[:, 0])) < 0.1
    assert np.all(np.abs(found[:, 0]) < 4 * found[:, 1]), "and it knows how sure it may be"
    assert np.all(found[:, 1] < 0.3)


def test_what_the_body_is_like_is_told_with_it() -> None:
    body = Body(tau_s=330.0, lag_s=17.0, warming=0.12)
    course, _ = followed(body, 50)
    node, traits = read(course)
    assert traits.tau_s == pytest.approx(body.tau_s, rel=0.25)
    assert node.warming == pytest.approx(body.warming, rel=0.25)
    assert node.idle_c == pytest.approx(body.idle_c, abs=4 * node.ee**0.5)
    ahead = advanced(node, traits, [(60.0, 1.0)]).temp_c - node.temp_c
    assert ahead == pytest.approx(60 * body.warming * 0.72, rel=0.2), "so that it foretells what work would warm"


def test_a_warming_day_is_followed() -> None:
    body = Body(slope=2.0 / 3600)
    found = errors(body)
    assert np.all(np.abs(found[:, 0]) < 0.3)
    course, _ = followed(body, 50)
    assert read(course)[0].slope == pytest.approx(body.slope, abs=6e-4)


def test_a_finer_scale_makes_it_surer_though_nobody_knows_its_zero() -> None:
    alone, both = errors(Body()), errors(Body(), finer=-7.3)
    assert np.mean(both[:, 1]) < np.mean(alone[:, 1])
    assert np.all(np.abs(both[:, 0]) < 4 * both[:, 1])


def test_a_scale_of_something_else_is_found_out_and_left_aside() -> None:
    body = Body()
    other = [c + (3.0 if body.load(k) else 0.0) for k, c in enumerate(body.course(3000))]
    course, true_c = followed(body, 50, finer_c=other)
    assert course.untied and not course.squares.any()
    node, _ = read(course)
    assert abs(node.temp_c - true_c[round(course.t)]) < 0.3


def test_after_a_jump_the_course_begins_anew() -> None:
    course, true_c = followed(Body(jump_c=12.0), 50)
    assert course.began_t > 1800
    assert abs(read(course)[0].temp_c - true_c[round(course.t)]) < 1.0


def test_it_says_nothing_before_it_has_seen_enough() -> None:
    course, _ = followed(Body(), 1)
    assert told(course, TRAITS, 20.0, 1.0) is None


def test_nothing_is_changed_in_place() -> None:
    course, _ = followed(Body(), 5)
    arrays = {name: value.copy() for name, value in vars(course).items() if isinstance(value, np.ndarray)}
    continued(course, 37.0, course.t + 20.0, 1.0, Body().loads, [(course.t + 10.0, 30.0)])
    assert all(np.array_equal(vars(course)[name], value) for name, value in arrays.items())


def test_every_model_is_the_body_of_a_node() -> None:
    """The temperature of each is linear in its unknowns, and the same as `advanced` says."""
    course, _ = followed(Body(), 1)
    spans = [(3.0, 1.0), (11.0, 0.0), (2.5, 0.4), (60.0, 0.0)]
    fresh = continued(None, 36.0, 0.0, 1.0, Body().loads)
    after = module._until(fresh, 76.5, lambda start, until: spans)
    tau, lag, _, _ = module._models()
    for k in (0, 5, len(tau) // 2, len(tau) - 1):
        theta = np.array([0.7, 35.0, 0.11, 0.0, 0.0])
        traits = replace(TRAITS, tau_s=float(tau[k]), lag_s=float(lag[k]))
        node = replace(first_seen(35.7, 0.0, traits, 0.0), idle_c=35.0, warming=0.11, lag_s=float(lag[k]))
        assert after.state[k] @ theta == pytest.approx(advanced(node, traits, spans).temp_c, abs=1e-9)
    assert course.t > 0


def test_slopes_and_curvature_are_those_of_the_value() -> None:
    dice = np.random.default_rng(1)
    rows = dice.normal(size=(3, 12, 5))
    low = dice.normal(size=12)
    squares = np.einsum("ki,kj->kij", rows[:, 0], rows[:, 0])
    fit = Fit(rows, low, low + 1.0, dice.uniform(0.2, 1.0, 12), squares, rows[:, 1], rows[:, 2], rows[:, 3] ** 2)
    theta, small = 0.1 * dice.normal(size=(3, 5)), 1e-5
    gradient, curvature = fit._slopes(theta)
    for i in range(5):
        step = small * np.eye(5)[i]
        assert (fit._value(theta + step) - fit._value(theta - step)) / (2 * small) == pytest.approx(
            gradient[:, i], rel=1e-4, abs=1e-4
        )
        bent = (fit._slopes(theta - step)[0] - fit._slopes(theta + step)[0]) / (2 * small)
        assert bent == pytest.approx(curvature[:, i], rel=2e-3, abs=2e-3)


def test_a_course_that_begins_warm_does_not_take_that_for_idling() -> None:
    """As after a relaunch, or when the charger went in: three degrees above idling, and it says so."""
    true_c, spans = [37.0 + 3.2 * exp(-t / 240.0) for t in range(240)], [(1.0, 0.0)]
    course = None
    for t in range(0, 240, 20):
        course = continued(
            course, float(round(true_c[t])), float(t), 1.0, lambda start, until: spans * round(until - start), warm=True
        )
    node, _ = read(course)
    assert abs(node.temp_c - true_c[220]) < 0.4 and abs(node.idle_c - 37.0) < 3 * node.ee**0.5
    cold = continued(None, 40.0, 0.0, 1.0, Body().loads)
    assert continued(None, 40.0, 0.0, 1.0, Body().loads, warm=True).spread[0, 0, 0] > 2 * cold.spread[0, 0, 0]
