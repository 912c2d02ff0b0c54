"""The range test: rates of a made-up curve, the ramp in the schedule, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest

from ondevice.errors import UsageError
from ondevice.run.recipe import TrainRecipe
from ondevice.run.schema import Config, TrainConfig
from ondevice.study.lr_range import find_rates, mean_rate, parse_ramp, ramped
from ondevice.train.schedule import learning_rate


def curve(*, diverges):
    """Flat until 1e-4, falling to 1e-2, and with ``diverges`` up again from 3e-2 on."""
    points = []
    for k in range(200):
        log = -6 + 6 * k / 199
        loss = 5.0 - 1.5 * min(max(log + 4, 0), 2) + (6.0 * max(log + 1.5, 0) if diverges else 0.0)
        points.append((10**log, loss))
    return points


def test_the_suggestion_lies_between_the_steepest_fall_and_the_divergence():
    found = find_rates(curve(diverges=True))
    assert 1e-4 < found.steepest < 1.2e-2
    assert found.diverges is not None and 3e-2 < found.diverges < 0.2
    assert found.suggested == pytest.approx(max(found.steepest, found.diverges / 3))


def test_without_divergence_the_rate_of_the_lowest_loss():
    found = find_rates(curve(diverges=False))
    assert found.diverges is None and found.suggested >= found.steepest


def test_the_ramp_climbs_by_one_factor():
    config = ramped(Config(train=TrainConfig(tokens=10_000, batch=4)), parse_ramp("1e-5..1e-1", steps=50))
    assert (config.train.schedule, config.train.tokens, config.eval.count) == ("ramp", None, 0)
    plain = {field.name: 0 for field in dataclasses.fields(TrainRecipe)}
    recipe = TrainRecipe(**{**plain, "anchors": (), "schedule": "ramp", "steps": 50, "lr": 1e-1, "lr_min": 1e-5})
    rates = [learning_rate(recipe, step) for step in range(50)]
    factors = {round(math.log(b / a), 9) for a, b in itertools.pairwise(rates)}
    assert rates[0] == pytest.approx(1e-5) and rates[-1] == pytest.approx(1e-1) and len(factors) == 1


@pytest.mark.parametrize("text", ["1e-5", "1e-1..1e-5", "0..1", "a..b", "1e-5..inf", ""])
def test_odd_ranges_are_refused(text):
    with pytest.raises(UsageError, match="write two rates"):
        parse_ramp(text, steps=50)


def test_too_few_steps():
    with pytest.raises(UsageError, match="at least 10 steps"):
        parse_ramp("1e-5..1", steps=9)
    with pytest.raises(UsageError, match="says nothing"):
        find_rates([(1e-3, 3.0)])


def test_rates_of_seeds_are_averaged_by_their_logarithm():
    assert mean_rate([1e-3, 1e-1]) == pytest.approx(1e-2)
