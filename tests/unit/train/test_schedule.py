"""Learning rates against the declared formulas and their checked values."""

import dataclasses
import itertools
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ondevice.run.recipe import TrainRecipe
from ondevice.train.schedule import anchored, learning_rate, tail_rate

BASE = TrainRecipe(
    steps=1000,
    tokens=0,
    batch=1,
    optimizer="adamw",
    optimizer_state="adamw-fp32",
    lr=2e-4,
    lr_min=2e-5,
    schedule="wsd",
    warmup_steps=10,
    tail="inverse-proportional",
    tail_steps=100,
    weight_decay=0.0,
    beta1=0.9,
    beta2=0.99,
    eps=1e-8,
    clip=1.0,
    seed=0,
    precision="fp32",
)


@pytest.mark.parametrize(
    ("start", "length", "step", "expected"),
    [(13500, 1350, 14200, 3.529412e-5), (11000, 1100, 11900, 2.391304e-5), (8000, 800, 8600, 2.580645e-5)],
)
def test_inverse_proportional_tail_matches_the_published_values(start, length, step, expected):
    recipe = dataclasses.replace(BASE, steps=start + length, tail_steps=length)
    assert learning_rate(recipe, step) == pytest.approx(expected, rel=5e-7)


def test_warmup_is_linear_and_reaches_the_peak_on_its_last_step():
    rates = [learning_rate(BASE, step) for step in range(11)]
    assert rates[:10] == pytest.approx([2e-4 * (step + 1) / 10 for step in range(10)])
    assert rates[10] == 2e-4


def test_wsd_keeps_the_peak_until_the_tail_begins():
    assert {learning_rate(BASE, step) for step in range(10, 901)} == {2e-4}
    assert learning_rate(BASE, 901) < 2e-4


@pytest.mark.parametrize("shape", ["linear", "cosine", "1-sqrt", "inverse-proportional"])
def test_tails_fall_from_the_peak_to_the_floor_without_rising(shape):
    rates = [tail_rate(shape, index / 50, peak=1.0, low=0.1) for index in range(51)]
    assert rates[0] == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1)
    assert all(later < earlier for earlier, later in itertools.pairwise(rates))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_decaying_schedules_run_over_all_steps_after_warmup(schedule):
    recipe = dataclasses.replace(BASE, schedule=schedule, lr_min=0.0)
    middle = learning_rate(recipe, 10 + 495)
    assert middle == pytest.approx(1e-4, rel=1e-9)
    assert 0 < learning_rate(recipe, 999) < 1e-6 * 1000


def test_constant_stays_constant():
    recipe = dataclasses.replace(BASE, schedule="constant")
    assert learning_rate(recipe, 10) == learning_rate(recipe, 999) == 2e-4


def test_cosine_is_the_cosine():
    assert tail_rate("cosine", 0.25, peak=1.0, low=0.0) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


SHAPES = [("constant", ""), ("linear", ""), ("cosine", ""), ("wsd", "linear"), ("wsd", "inverse-proportional")]


@pytest.mark.parametrize(("schedule", "tail"), SHAPES)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    revisions=st.lists(st.tuples(st.integers(0, 150), st.integers(1, 400)), min_size=1, max_size=4),
    warmup=st.integers(0, 40),
)
def test_no_revision_makes_the_rate_jump_or_changes_what_was_trained(schedule, tail, revisions, warmup):
    """``revisions``: steps trained since the last one, and how many are then left."""
    recipe = dataclasses.replace(BASE, steps=200, schedule=schedule, tail=tail, tail_steps=60, warmup_steps=warmup)
    recipe = dataclasses.replace(recipe, tail_steps=60 if schedule == "wsd" else 0)
    reached, trained = 0, []
    for more, left in revisions:
        until = min(reached + more, recipe.steps)
        trained += [learning_rate(recipe, step) for step in range(reached, until)]
        reached = until
        wished = dataclasses.replace(recipe, steps=reached + left, tail_steps=min(recipe.tail_steps, reached + left))
        was, recipe = learning_rate(recipe, reached), anchored(recipe, wished, reached=reached)
        assert learning_rate(recipe, reached) == pytest.approx(was, rel=1e-12), "no jump"
        assert [learning_rate(recipe, step) for step in range(reached)] == trained
    rates = [learning_rate(recipe, step) for step in range(recipe.steps)]
    assert all(recipe.lr_min * 0.999 <= rate <= recipe.lr for rate in rates[warmup:])
    assert all(later <= earlier * (1 + 1e-12) for earlier, later in itertools.pairwise(rates[warmup:])), "never up"


def test_a_cosine_of_which_the_horizon_moves_goes_on_from_the_rate_it_had():
    plain = dataclasses.replace(BASE, schedule="cosine", steps=100, tail_steps=0)
    longer = dataclasses.replace(plain, steps=300)
    jump = learning_rate(longer, 80) - learning_rate(plain, 80)
    assert jump > plain.lr / 2, "what the anchor is for"
    recipe = anchored(plain, longer, reached=80)
    assert learning_rate(recipe, 80) == learning_rate(plain, 80)
    assert learning_rate(recipe, 299) == pytest.approx(plain.lr_min, rel=0.01)
    again = anchored(recipe, dataclasses.replace(recipe, steps=400), reached=80)
    assert [anchor.step for anchor in again.anchors] == [80], "nothing was trained between the two"
    back = anchored(again, dataclasses.replace(again, steps=500), reached=50)
    assert [(anchor.step, anchor.steps) for anchor in back.anchors] == [(50, 100)], "newer checkpoints were lost"
    finished = anchored(plain, longer, reached=100)
    assert {learning_rate(finished, step) for step in range(100, 300)} == {plain.lr_min}
    assert anchored(plain, longer, reached=0) == longer
