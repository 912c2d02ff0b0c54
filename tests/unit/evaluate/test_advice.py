"""Advice: when each piece begins and ends, that it is told once, and that a restart tells nothing twice."""

from __future__ import annotations

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.evaluate.advice import Adviser, Seen


def told(mixed, *, adviser=None, before_tail=False, start=0, **more):
    """What is new at each evaluation; ``more`` gives lists of losses by source, epochs or repetition."""
    adviser = adviser or Adviser()
    found = []
    for k, loss in enumerate(mixed):
        fields = {name: values[k] for name, values in more.items()}
        seen = Seen(step=(start + k) * 10, tokens=(start + k) * 100_000, mixed=loss, **fields)
        found.append([(each.what, each.source) for each in adviser.see(seen, before_tail=before_tail)])
    return found


def test_a_falling_run_hears_nothing():
    assert not any(told([5.0 * 0.9**k for k in range(21)]))


def test_the_over_trained_run_is_told_once_to_stop():
    losses = [8.3, 4.9, 3.6, 3.05, 2.80] + [2.80 + 0.07 * k for k in range(1, 17)]
    found = told(losses)
    assert [each for each in found if each] == [[("stop", "")]]
    assert found.index([("stop", "")]) == 8  # the best is older than three evaluations


def test_before_a_tail_the_advice_is_to_start_it():
    losses = [8.3, 4.9, 3.6, 3.05, 2.80] + [2.80 + 0.07 * k for k in range(1, 6)]
    assert [("start the tail", "")] in told(losses, before_tail=True)


def test_advice_that_ended_may_be_told_again():
    adviser = Adviser()
    first = told([3.0, 2.5, 2.6, 2.7, 2.8, 2.9], adviser=adviser)
    assert [("stop", "")] in first and adviser.standing
    told([2.0, 1.9], adviser=adviser, start=6)
    assert not adviser.standing
    assert [("stop", "")] in told([2.0, 2.1, 2.2, 2.3, 2.4], adviser=adviser, start=8)


def test_a_jump_is_told_when_it_comes():
    found = told([3.1, 3.0, 2.92, 2.86, 2.82, 3.6, 3.1])
    assert found[5] == [("spike", "")] and not found[6]


def test_a_source_that_alone_gets_worse_is_being_forgotten():
    code = [3.0, 2.0, 2.3, 2.5, 2.6, 2.2, 2.0]
    prose = [3.0, 2.8, 2.4, 2.0, 1.8, 1.7, 1.6]
    mixed = [(a + b) / 2 for a, b in zip(code, prose, strict=True)]
    found = told(mixed, losses=[{"code": a, "prose": b} for a, b in zip(code, prose, strict=True)])
    assert [each for each in found if each] == [[("forgetting", "code")]]
    assert found[3] == [("forgetting", "code")]  # twice in a row


def test_a_staged_order_that_forgets_while_it_learns_is_not_told_to_stop():
    late = (5.0, 4.9, 4.8, 4.0, 3.5, 3.2, 3.0)
    early = (5.0, 3.0, 2.6, 3.8, 4.6, 5.1, 5.4)
    rows = [{"early": a, "late": b} for a, b in zip(early, late, strict=True)]
    mixed = [sum(row.values()) / 2 for row in rows]
    assert min(mixed) == mixed[2] and mixed[-1] > mixed[-3], "the mixture alone would say stop"
    assert {what for each in told(mixed, losses=rows) for what, _ in each} == {"forgetting"}
    assert "stop" in {what for each in told(mixed) for what, _ in each}
    done = [{**row, "late": max(row["late"], 3.5)} for row in rows] + [{"early": 5.6, "late": 3.6}] * 3
    found = told([sum(row.values()) / 2 for row in done], losses=done)
    assert "stop" in {what for each in found for what, _ in each}, "nothing is learned any more"


def test_when_everything_gets_worse_nothing_is_forgotten():
    rows = [{"a": loss, "b": loss} for loss in (3.0, 2.0, 2.2, 2.4, 2.6)]
    found = told([row["a"] for row in rows], losses=rows)
    assert not any(what == "forgetting" for each in found for what, _ in each)


def test_a_single_source_is_never_forgotten():
    assert not any(told([2.0, 2.1], losses=[{"a": 2.0}, {"a": 2.5}]))


def test_loss_and_repetition_part():
    found = told([3.0, 2.9, 2.8, 2.7, 2.6], repeated=[0.02, 0.03, 0.02, 0.12, 0.2])
    assert [each for each in found if each] == [[("parting", "")]]
    assert not any(told([3.0, 2.9, 2.8, 2.7, 2.6], repeated=[None, 0.5, None, 0.1, 0.9]))
    assert not any(told([3.0, 2.9, 2.8, 2.7, 2.6], repeated=[0.2, 0.2, 0.1, 0.1, 0.1]))


def test_many_readings_are_told_once_a_source():
    found = told([3.0, 2.9, 2.8], epochs=[{"a": 3.9}, {"a": 4.1, "b": 1.0}, {"a": 5.0, "b": 4.5}])
    assert found == [[], [("repeats", "a")], [("repeats", "b")]]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0.5, 9.0), st.floats(0.5, 9.0), st.floats(0, 1)), min_size=2, max_size=24),
    st.integers(1, 23),
)
def test_a_restart_anywhere_changes_nothing(rows, cut):
    def see(adviser, first, last):
        return told(
            [(a + b) / 2 for a, b, _ in rows[first:last]],
            adviser=adviser,
            start=first,
            losses=[{"a": a, "b": b} for a, b, _ in rows[first:last]],
            repeated=[repeated for _, _, repeated in rows[first:last]],
        )

    whole, cut = Adviser(), min(cut, len(rows))
    expected = see(whole, 0, len(rows))
    before, after = Adviser(), Adviser()
    found = see(before, 0, cut)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert found + see(after, cut, len(rows)) == expected
    assert after.standing == whole.standing


def test_a_long_run_is_remembered_in_bounds_with_its_best():
    adviser = Adviser()
    told([3.0 + math.sin(k / 50) + (k == 5) * -2.5 for k in range(900)], adviser=adviser)
    state = adviser.state_dict()
    assert len(state["points"]) == 200 and state["points"][0][0] == 50
    assert "850,000" not in " ".join(adviser.standing) and "step 50" in " ".join(adviser.standing)


def test_an_evaluation_that_is_made_again_counts_once():
    adviser = Adviser()
    told([3.0, 2.5, 2.6], adviser=adviser)
    told([2.4], adviser=adviser, start=2)
    assert [point[2] for point in adviser.state_dict()["points"]] == [3.0, 2.5, 2.4]


def test_what_another_version_remembered_is_left_alone():
    adviser = Adviser()
    adviser.load_state_dict({"v": 999, "points": "?"})
    adviser.load_state_dict({})
    assert adviser.state_dict()["points"] == []
