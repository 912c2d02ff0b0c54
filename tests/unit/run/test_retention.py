"""Retention: every policy on its own, and what no policy may ever do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.run.retention import (
    FEWEST,
    Decision,
    Policy,
    Scores,
    best_steps,
    decide,
    first_of_every,
    newest,
    tightest,
)
from ondevice.run.schema import Limits

STEPS = st.sets(st.integers(0, 60), max_size=20)
COUNTS = st.integers(0, 6)
SCORES = st.dictionaries(st.integers(0, 60), st.integers(0, 9).map(float), max_size=20)


@st.composite
def situations(draw: st.DrawFn) -> dict[str, Any]:
    steps = draw(STEPS)
    every = draw(st.none() | st.integers(1, 30))
    return {
        "steps": steps,
        "complete": steps - draw(STEPS),
        "policy": Policy(
            keep_last=draw(st.integers(2, 6)),
            keep_every_steps=every,
            keep_best=draw(COUNTS),
            keep_best_quality=draw(COUNTS),
            drop_old_optimizer=draw(st.booleans()),
        ),
        "pins": draw(STEPS),
        "scores": Scores(losses=draw(SCORES), quality=draw(SCORES)),
    }


def after(decision: Decision, situation: dict[str, Any]) -> dict[str, Any]:
    """The situation once the decision was carried out."""
    steps = set(decision.keep)
    return {**situation, "steps": steps, "complete": (situation["complete"] & steps) - decision.lighten}


@given(situations())
def test_every_step_is_kept_or_removed_and_only_kept_ones_are_lightened(situation: dict[str, Any]) -> None:
    decision = decide(**situation)
    assert decision.keep | set(decision.remove) == situation["steps"]
    assert not decision.keep & set(decision.remove)
    assert decision.lighten <= decision.keep & situation["complete"]
    assert list(decision.remove) == sorted(decision.remove)


@given(situations())
def test_two_complete_ones_stay_or_all_there_are(situation: dict[str, Any]) -> None:
    left = after(decide(**situation), situation)["complete"]
    newest_two = newest(situation["complete"], FEWEST)
    assert newest_two <= left
    if len(situation["complete"]) < FEWEST:
        assert decide(**situation) == Decision(keep=frozenset(situation["steps"]), lighten=frozenset(), remove=())


@given(situations())
def test_the_newest_that_were_asked_for_stay_complete(situation: dict[str, Any]) -> None:
    wanted = newest(situation["complete"], situation["policy"].keep_last)
    assert wanted <= after(decide(**situation), situation)["complete"]


@given(situations())
def test_pins_stay_and_stay_as_they_are(situation: dict[str, Any]) -> None:
    left, pinned = after(decide(**situation), situation), situation["pins"]
    assert pinned & situation["steps"] <= left["steps"]
    assert pinned & situation["complete"] <= left["complete"]


@given(situations())
def test_whatever_goes_is_older_than_two_complete_ones(situation: dict[str, Any]) -> None:
    decision = decide(**situation)
    left = after(decision, situation)["complete"]
    for step in {*decision.remove, *decision.lighten}:
        assert sum(newer > step for newer in left) >= FEWEST


@given(situations())
def test_a_second_time_changes_nothing(situation: dict[str, Any]) -> None:
    left = after(decide(**situation), situation)
    again = decide(**left)
    assert (again.keep, again.lighten, again.remove) == (frozenset(left["steps"]), frozenset(), ())


@given(situations(), st.sampled_from(["keep_last", "keep_best", "keep_best_quality"]), st.integers(1, 5))
def test_a_larger_number_never_keeps_less(situation: dict[str, Any], name: str, more: int) -> None:
    policy = situation["policy"]
    larger = dataclasses.replace(policy, **{name: getattr(policy, name) + more})
    assert decide(**situation).keep <= decide(**{**situation, "policy": larger}).keep


@given(situations(), st.integers(1, 10), st.integers(1, 4))
def test_a_finer_interval_never_keeps_less(situation: dict[str, Any], fine: int, times: int) -> None:
    coarse = dataclasses.replace(situation["policy"], keep_every_steps=fine * times)
    finer = dataclasses.replace(coarse, keep_every_steps=fine)
    kept = [decide(**{**situation, "policy": policy}).keep for policy in (coarse, finer)]
    assert kept[0] <= kept[1]


@given(situations(), STEPS)
def test_more_pins_never_keep_less(situation: dict[str, Any], more: set[int]) -> None:
    assert decide(**situation).keep <= decide(**{**situation, "pins": situation["pins"] | more}).keep


@given(situations())
def test_the_tightest_policy_keeps_a_part_of_what_any_other_keeps(situation: dict[str, Any]) -> None:
    tight = {**situation, "policy": tightest(situation["policy"])}
    assert decide(**tight).keep <= decide(**situation).keep


@given(situations())
def test_a_new_checkpoint_never_brings_one_back_into_favour(situation: dict[str, Any]) -> None:
    """What was to go before a save goes after it too."""
    gone = set(decide(**situation).remove)
    steps, complete = situation["steps"] | {100}, situation["complete"] | {100}
    assert gone <= set(decide(**{**situation, "steps": steps, "complete": complete}).remove)


def test_each_rule_alone() -> None:
    steps = range(10, 101, 10)
    assert newest(steps, 3) == {80, 90, 100} and newest(steps, 0) == set()
    assert first_of_every(steps, 25) == {30, 50, 80, 100}
    assert first_of_every(steps, None) == set()
    scores = {10: 3.0, 20: 1.0, 30: 2.0, 40: 1.0, 999: 0.0}
    assert best_steps(steps, scores, 2) == {20, 40}
    assert best_steps(steps, scores, 1) == {20}
    assert best_steps(steps, scores, 2, highest=True) == {10, 30}
    assert best_steps(steps, scores, 0) == set()


def test_a_whole_life() -> None:
    policy = Policy(keep_last=2, keep_every_steps=50, keep_best=1, keep_best_quality=0)
    decision = decide(
        range(10, 101, 10), range(10, 101, 10), policy=policy, pins={10}, scores=Scores(losses={30: 1.0, 90: 2.0})
    )
    assert decision.keep == {10, 30, 50, 90, 100}
    assert decision.lighten == {30, 50}
    assert decision.remove == (20, 40, 60, 70, 80)
    whole = decide(range(10, 101, 10), range(10, 101, 10), policy=dataclasses.replace(policy, drop_old_optimizer=False))
    assert whole.lighten == frozenset()


def test_a_damaged_newer_one_is_no_successor() -> None:
    decision = decide([1, 2, 3, 4], [1, 2], policy=Policy(keep_last=2))
    assert decision.remove == ()
    decision = decide([1, 2, 3, 4], [1, 2, 4], policy=Policy(keep_last=2))
    assert decision.remove == (1,), "3 is newer than two complete ones and stays"


@pytest.mark.parametrize("keep_last", [0, 1])
def test_no_number_goes_below_two(keep_last: int) -> None:
    assert decide([1, 2, 3], [1, 2, 3], policy=Policy(keep_last=keep_last)).keep == {2, 3}


def test_the_policy_is_that_of_the_limits() -> None:
    assert Policy.of(Limits()) == Policy()
    limits = Limits(keep_last=4, keep_every_steps=7, keep_best=2, keep_best_quality=0, drop_old_optimizer=False)
    policy = Policy.of(limits)
    assert policy == Policy(keep_last=4, keep_every_steps=7, keep_best=2, keep_best_quality=0, drop_old_optimizer=False)
    assert tightest(policy) == Policy(keep_last=2, keep_best=1, keep_best_quality=0, drop_old_optimizer=False)
