"""How far a battery in whole degrees lies above a finer scale, learned from both."""

from __future__ import annotations

import random
from math import sin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.governor.offset import Offset, compared, unsure_c


def learned(true_c: float, *, samples: int, seed: int, wander_c: float = 0.0) -> Offset:
    """From a battery that swings around the edges of whole degrees, read every 20 s."""
    dice, offset = random.Random(seed), None
    for k in range(samples):
        t = 20.0 * k
        battery_c = 38.0 + 2.0 * sin(t / 130.0)
        fine_c = battery_c - true_c - wander_c * sin(t / 300.0)
        sample_c = float(round(battery_c + dice.gauss(0.0, 0.1)))
        offset = compared(offset, sample_c, t, step_c=1.0, noise_c=0.12, fine_c=fine_c, fine_var=0.05**2)
    assert offset is not None
    return offset


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("true_c", [-3.3, 0.0, 15.4])
def test_it_is_found_to_a_tenth_through_whole_degrees(true_c: float, seed: int) -> None:
    offset = learned(true_c, samples=90, seed=seed)
    assert abs(offset.mean_c - true_c) < 0.2
    assert unsure_c(offset, offset.t) < 0.15
    assert abs(offset.mean_c - true_c) < 3.0 * unsure_c(offset, offset.t)


def test_scales_that_do_not_keep_together_are_hardly_believed() -> None:
    together, apart = learned(5.0, samples=90, seed=1), learned(5.0, samples=90, seed=1, wander_c=3.0)
    assert apart.drift > 5 * together.drift
    assert unsure_c(apart, apart.t + 60.0) > 2 * unsure_c(together, together.t + 60.0)


def test_it_is_worth_less_the_older_it_is() -> None:
    offset = learned(5.0, samples=60, seed=2)
    assert unsure_c(offset, offset.t) < unsure_c(offset, offset.t + 600.0) < unsure_c(offset, offset.t + 6000.0)


@settings(max_examples=200, deadline=None)
@given(sample=st.integers(20, 50), more=st.integers(1, 6), mean_c=st.floats(-5, 5), var=st.floats(0.001, 1.0))
def test_a_hotter_battery_never_lies_lower(sample: int, more: int, mean_c: float, var: float) -> None:
    def mean(sample_c: float) -> float:
        before = Offset(mean_c=mean_c, var=var, t=0.0)
        return compared(before, sample_c, 20.0, step_c=1.0, noise_c=0.12, fine_c=35.0, fine_var=0.01).mean_c

    assert mean(sample + more) >= mean(sample) - 1e-6
