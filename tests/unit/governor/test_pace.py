"""Step times as a thermometer: the cold baseline, and a duty that follows the slowdown without hunting."""

from __future__ import annotations

import random

import pytest

from ondevice.governor.pace import LEAST, Pace, after_step, allowed, slowdown


def after(steps: list[float]) -> Pace:
    pace = Pace()
    for step_s in steps:
        pace = after_step(pace, step_s)
    return pace


def test_the_baseline_is_the_fastest_stretch() -> None:
    assert slowdown(after([2.0] * 10 + [2.6] * 10)) == pytest.approx(1.3)
    assert slowdown(after([2.6] * 10 + [2.0] * 10)) == pytest.approx(1.0)


def test_one_lucky_step_is_no_baseline() -> None:
    assert slowdown(after([2.0] * 10 + [1.0] + [2.0] * 10)) == pytest.approx(1.0)


def test_short_steps_are_averaged() -> None:
    dice = random.Random(1)
    found = slowdown(after([0.05 * dice.uniform(0.5, 1.5) for _ in range(2000)]))
    assert found is not None and found < 1.12


@pytest.mark.parametrize("odd", [0.0, -1.0, float("nan")])
def test_an_odd_time_is_ignored(odd: float) -> None:
    assert after([odd]) == Pace()


def test_nothing_is_known_at_first() -> None:
    assert slowdown(after([2.0, 2.0])) is None


def test_slow_steps_cost_duty_and_fast_ones_give_it_back() -> None:
    pace, now = after([2.0] * 9), 0.0
    duties = []
    for step_s in [2.0] * 30 + [2.8] * 60 + [2.0] * 200:
        pace, now = after_step(pace, step_s), now + 5.0
        pace = allowed(pace, 1.15, now, trusted=True)
        duties.append(pace.duty)
    assert duties[29] == 1.0
    assert LEAST <= duties[89] < 0.35
    assert duties[-1] == 1.0
    assert min(duties) >= LEAST


def test_slow_steps_of_another_cause_cost_nothing() -> None:
    pace, now = after([2.0] * 9 + [4.0] * 9), 0.0
    for _ in range(50):
        now += 10.0
        pace = allowed(pace, 1.15, now, trusted=False)
    assert pace.duty == 1.0
