"""Over-trained and forgotten sources are told apart by when they were read."""

from __future__ import annotations

import pytest

from ondevice.report.rises import advice, behind_mixture, rise_rows, seed_advice
from ondevice.study.results import results_of
from ondevice.study.story import Interval, Story

NOISE = {1: (0.0, 0.01, -0.02, 0.015, 0.0), 2: (0.01, -0.01, 0.02, -0.02, 0.01), 3: (-0.01, 0.02, 0.0, 0.01, -0.01)}


def told(sources, *, epochs=3.0):
    """One arm over three seeds; each source has its losses and the tokens read of it by each evaluation."""
    stories = {}
    for seed, noise in NOISE.items():
        intervals = []
        for k in range(5):
            losses = {name: curve[k] + noise[k] for name, (curve, _) in sources.items()}
            intervals.append(
                Interval(
                    step=10 * k,
                    tokens=1000 * k,
                    losses={"": sum(losses.values()) / len(losses), **losses},
                    trained={name: float(read[k]) for name, (_, read) in sources.items() if read},
                    epochs=dict.fromkeys(sources, epochs),
                )
            )
        stories[seed] = Story(intervals=tuple(intervals))
    return results_of({"arm": stories}, reference=None, planned=3)["arms"]["arm"]


FALLING, RISING = (5.0, 4.0, 3.5, 3.2, 3.0), (5.0, 3.0, 3.3, 3.6, 4.0)
ALL_ALONG, FIRST_ONLY, LAST_ONLY = (0, 1, 2, 3, 4), (0, 9, 9, 9, 9), (0, 0, 0, 5, 9)


def test_a_source_that_rises_while_it_is_read_again_is_over_trained():
    arm = told({"text": (RISING, ALL_ALONG)})
    found = arm["rises"]["text"]
    assert (found["cause"], found["after_read"], found["read_until"]) == ("over-trained", None, 1.0)
    assert found["while_read"]["estimate"] == pytest.approx(1.0, abs=0.05)
    assert "over-trained, rising while read again: text (read 3.0 times, +0.99" in advice(arm)
    assert "Stop earlier, or" in advice(arm)
    assert seed_advice("stop", arm["rises"]) == "stop"


def test_a_source_that_rises_after_its_last_reading_is_forgotten():
    arm = told({"early": ((5.0, 2.0, 4.0, 4.6, 5.5), FIRST_ONLY), "late": ((5.0, 4.9, 4.5, 3.8, 3.0), LAST_ONLY)})
    early, late = arm["rises"]["early"], arm["rises"]["late"]
    assert (early["cause"], early["read_until"], late["cause"]) == ("forgotten", 0.25, None)
    assert early["after_read"]["estimate"] == pytest.approx(3.5, abs=0.05)
    assert early["while_read"]["estimate"] == 0.0
    assert "forgotten, rising after the last reading: early (+3.4" in advice(arm)
    assert "rather than stop earlier" in advice(arm)
    assert "over-trained" not in advice(arm)
    assert seed_advice("stop", arm["rises"]).startswith("mix") and seed_advice("go on", arm["rises"]) == "go on"


def test_both_are_named_where_both_happened():
    arm = told({"early": ((5.0, 2.0, 4.0, 4.6, 5.5), FIRST_ONLY), "again": ((5.0, 3.0, 3.4, 3.8, 4.2), ALL_ALONG)})
    assert "read again: again (read 3.0 times" in advice(arm) and "last reading: early (" in advice(arm)


def test_a_rise_in_the_first_pass_is_not_called_over_training():
    arm = told({"text": (RISING, ALL_ALONG)}, epochs=0.6)
    assert arm["rises"]["text"]["cause"] == "first pass"
    assert "over-trained" not in advice(arm) and "learning rate" in advice(arm)


def test_a_source_that_is_never_read_is_neither():
    arm = told({"text": (FALLING, ALL_ALONG), "outside": (RISING, None), "zero": (RISING, (0,) * 5)})
    for name in ("outside", "zero"):
        found = arm["rises"][name]
        assert (found["cause"], found["read_until"], found["while_read"]) == ("unread", None, None)
    rows = {row[1]: row for row in rise_rows({"arm": arm})}
    assert rows["outside"][-1] == "never" and rows["text"][4] == "no sure rise"


def test_what_the_mixture_hides_is_said():
    arm = told({"early": ((5.0, 2.0, 2.2, 2.3, 2.4), FIRST_ONLY), "late": ((9.0, 8.0, 6.0, 4.0, 3.0), LAST_ONLY)})
    assert arm["tokens_after_best"] == 0
    assert behind_mixture(arm).startswith("forgotten, rising after the last reading: early (+0.39")


def test_a_record_from_before_has_no_causes_and_is_still_told():
    arm = told({"text": (RISING, ALL_ALONG)})
    del arm["rises"]
    assert "whether it was over-trained is not known" in advice(arm)
    assert list(rise_rows({"arm": arm})) == []
