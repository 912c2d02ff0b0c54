"""What a plan says of the time a run will really take: experience first, honesty where there is none."""

from __future__ import annotations

import pytest

from ondevice.cli.foresight import experience, foresee
from ondevice.cli.plan_text import _expected_lines
from ondevice.run.directory import RunDir
from ondevice.run.liveness import read_status, write_status
from ondevice.run.schema import Limits
from ondevice.run.usage import Usage

SEEN = Usage(open_s=900.0, recent_open_s=900.0, recent_worked_s=450.0, recent_tokens=9e4)
POWERED = Usage(**{**SEEN.to_json(), "energy_wh": 3.6, "energy_s": 3600.0})


LIMITS = Limits()


def plan(seen, limits=LIMITS, *, battery=True, handheld=True, price=None):
    return foresee(
        limits, seen, tokens=360_000, tok_s=100.0, handheld=handheld, battery=battery, price=price, now=1.79e9
    )


def test_an_earlier_run_tells_the_pace_and_the_power():
    found = plan(("notes", POWERED), price=0.5)
    assert (found.known, found.duty, found.sustained_tok_s, found.open_s) == (True, 0.5, 50.0, 7200.0)
    assert found.done_t == 1.79e9 + 7200.0 and found.why == "as run notes did here"
    assert found.energy.wh_left == pytest.approx(7.2) and found.energy.price_left == pytest.approx(0.0036)
    assert plan(("notes", SEEN), Limits(duty_max=0.25)).duty == 0.25


def test_a_phone_that_never_trained_is_unknown_and_says_so():
    found = plan(None)
    assert not found.known and found.energy.wh_left is None
    lines = list(_expected_lines(found))
    assert lines[0] == "         at least 1h06m with all pauses (90% work):"
    assert "at the earliest" in lines[2] and max(map(len, lines)) <= 72


def test_a_machine_on_the_mains_is_held_back_by_nothing():
    found = plan(None, battery=False, handheld=False)
    assert found.known and found.duty == pytest.approx(0.9)


def test_hours_count_and_hours_that_never_suffice_are_said():
    night = plan(("notes", SEEN), Limits(hours="22:00-23:00"))
    assert night.done_t is not None and night.done_t - 1.79e9 > 86_400.0
    never = foresee(
        Limits(hours="sat 22:00-22:01"), None, tokens=10**9, tok_s=1.0, handheld=True, battery=True, now=1.79e9
    )
    assert never.done_t is None
    assert "         it would never end within its hours, sat 22:00-22:01" in list(_expected_lines(never))


def test_experience_is_the_last_run_that_ran_long_enough(own):
    assert experience() is None  # a few seconds tell nothing
    run = RunDir(own / "runs" / "tiny")
    write_status(run, {**read_status(run), "usage": SEEN.to_json()}, durable=False)
    found = experience()
    assert found is not None and found[0] == "tiny" and found[1].duty == pytest.approx(0.5)
    write_status(run, {**read_status(run), "simulated": {"speed": 60}}, durable=False)
    assert experience() is None


def test_the_plan_has_it_in_words_and_json(place, call):
    out = call("plan", "tiny.toml", "--rate", 1000, "--set", "limits.hours=00:00-24:00").out
    assert "with all pauses" in out and "Done     " in out and "hours 00:00-24:00" in out
    expected = call("plan", "tiny.toml", "--rate", 1000, "--json").json["expected"]
    assert expected["sustained_tok_s"] == pytest.approx(1000 * expected["duty"]) and expected["done_t"] > 0
