"""Which changes from part to part count as regressions."""

import pytest

from ondevice.study.regressions import Answers, changes, is_right

FINE = tuple(range(40))
LOOP = (1, 2, 3) * 12


def answers(part, ids, right=None):
    return Answers(part=part, step=int(part), ids=tuple(ids), right=tuple(right or [None] * len(ids)))


@pytest.mark.parametrize(
    ("text", "expected", "contains", "right"),
    [
        (" Paris, of course", "Paris", "", True),
        ("It is Paris", "Paris", "", False),
        ("It is Paris", "", "Paris", True),
        ("It is Rome", "", "Paris", False),
        ("Paris in spring", " Paris", "autumn", False),
        ("anything", "  ", "", None),
    ],
)
def test_an_answer_begins_as_expected_and_holds_what_it_must(text, expected, contains, right):
    assert is_right(text, expected=expected, contains=contains) is right


def test_answers_lost_and_gained_are_listed_by_prompt():
    before = answers("1", [FINE] * 4, [True, True, False, None])
    after = answers("2", [FINE] * 4, [True, False, True, None])
    (change,) = changes([before, after])
    assert (change.lost, change.gained, change.looping, change.worse) == ((1,), (2,), (), {})
    assert change.regressed and not changes([before, before])[0].regressed


def test_text_that_goes_in_circles_is_a_regression_and_the_way_back_is_none():
    fine, looping = answers("1", [FINE] * 12), answers("2", [LOOP] * 11 + [FINE])
    there, back = changes([fine, looping, fine])
    assert there.looping == tuple(range(11)) and set(there.worse) == {"diversity", "unrepeated_4grams", "unlooped"}
    assert all(difference.high < 0 for difference in there.worse.values())
    assert not back.regressed


def test_one_bad_text_is_listed_but_proves_no_fall_of_the_mean():
    (change,) = changes([answers("1", [FINE] * 12), answers("2", [LOOP] + [FINE] * 11)])
    assert change.looping == (0,) and change.worse == {}
    assert changes([answers("1", [FINE])]) == []
