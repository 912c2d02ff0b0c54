"""Time, energy and charge of a run: rests count, waits do not, and what was not read is not made up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.run.telemetry import KINDS
from ondevice.run.usage import Usage, rates


def story(*records: tuple[float, str, dict[str, Any]]) -> Usage:
    usage = Usage()
    for t, kind, values in records:
        usage.fold({"t": t, "kind": kind, "step": 0, **values})
    return usage


def steps(first: float, last: float, *, every: float, step_s: float = 1.0, tok_s: float = 100.0) -> Any:
    """Steps that end every so often."""
    count = round((last - first) / every)
    return [(first + every * n, "step", {"step_s": step_s, "tok_s": tok_s}) for n in range(1, count + 1)]


def test_rests_make_the_difference_between_burst_and_sustained() -> None:
    usage = story((0.0, "launch", {}), *steps(0, 100, every=2.0))
    assert usage.duty == pytest.approx(0.5, rel=1e-3)
    assert usage.burst_tok_s == pytest.approx(100.0) and usage.sustained_tok_s == pytest.approx(50.0, rel=1e-3)
    assert (usage.open_s, usage.worked_s, usage.waited_s, usage.tokens) == (100.0, 50.0, 0.0, 5000.0)


def test_waits_and_holds_are_not_rests() -> None:
    usage = story(
        (0.0, "launch", {}),
        *steps(0, 10, every=1.0),
        (10.0, "order", {"order": "wait", "why": "its hours"}),
        (3610.0, "order", {"order": "run", "duty": 1.0}),
        *steps(3610, 3620, every=1.0),
        (3620.0, "control", {"verb": "pause", "ok": True}),
        (9000.0, "control", {"verb": "resume", "ok": True}),
        (9001.0, "order", {"order": "rest", "duty": 0.0}),
        (9002.0, "end", {}),
    )
    assert (usage.open_s, usage.worked_s, usage.waited_s) == (22.0, 20.0, 3600.0 + 5380.0)


def test_time_between_launches_is_nobodys() -> None:
    usage = story((0.0, "launch", {}), *steps(0, 5, every=1.0), (1e6, "launch", {}), *steps(1e6, 1e6 + 5, every=1.0))
    assert usage.open_s == pytest.approx(10.0)
    jumped = story((0.0, "launch", {}), *steps(1e9, 1e9 + 5, every=1.0))
    assert jumped.open_s < 10.0, "a clock that was set is no rest"


def test_what_was_long_ago_fades() -> None:
    fast, slow = steps(0, 36_000, every=1.0), steps(36_000, 36_000 + 4 * 3600, every=10.0)
    usage = story((0.0, "launch", {}), *fast, *slow)
    assert usage.duty == pytest.approx(0.1, abs=0.02)
    assert usage.worked_s / usage.open_s == pytest.approx(0.743, abs=0.01)


def readings(last: float, *, every: float = 30.0, **values: Any) -> list[tuple[float, str, dict[str, Any]]]:
    return [(every * n, "reading", values) for n in range(round(last / every) + 1)]


def mixed(*rows: list[tuple[float, str, dict[str, Any]]]) -> Any:
    return sorted((row for some in rows for row in some), key=lambda row: row[0])


def test_energy_is_the_discharge_over_time() -> None:
    worked = steps(0, 3600, every=2.0)
    usage = story((0.0, "launch", {}), *mixed(worked, readings(3600, power_w=4.0, plugged=False)))
    assert usage.energy_wh == pytest.approx(4.0) and usage.power_w == pytest.approx(4.0)
    assert usage.wh_per_mtok == pytest.approx(4.0 / 0.18, rel=0.01)  # 1,800 steps of 100 tokens


@pytest.mark.parametrize("values", [{"power_w": 0.0}, {"power_w": -5.0}, {}, {"power_w": 4.0, "plugged": True}])
def test_energy_on_the_mains_is_unknown(values: dict[str, Any]) -> None:
    usage = story((0.0, "launch", {}), *mixed(steps(0, 3600, every=2.0), readings(3600, **values)))
    assert usage.power_w is None and usage.wh_per_mtok is None


def test_readings_too_far_apart_are_not_joined() -> None:
    far = readings(3600, every=300.0, power_w=4.0, plugged=False)
    assert story((0.0, "launch", {}), *mixed(steps(0, 3600, every=2.0), far)).power_w is None


def test_the_charge_falls_while_working_and_rises_on_the_charger() -> None:
    falling = [(60.0 * n, "reading", {"battery_percent": 80.0 - n // 3, "plugged": False}) for n in range(61)]
    usage = story((0.0, "launch", {}), *mixed(steps(0, 3600, every=2.0), falling))
    assert usage.used_per_hour == pytest.approx(20.0, rel=0.05) and usage.charged_per_hour is None
    rising = [(4000.0 + 60.0 * n, {"battery_percent": 60.0 + n // 2, "plugged": True}) for n in range(61)]
    usage.fold({"t": 3900.0, "kind": "order", "order": "wait"})
    for t, values in rising:
        usage.fold({"t": t, "kind": "reading", **values})
    assert usage.charged_per_hour == pytest.approx(30.0, rel=0.05)
    assert usage.used_per_hour is None, "the plug changed; how it drains on the charger is not known yet"


def test_one_percent_says_nothing_of_a_rate() -> None:
    few = [(30.0 * n, "reading", {"battery_percent": 80.0 - n // 10, "plugged": False}) for n in range(15)]
    assert story((0.0, "launch", {}), *mixed(steps(0, 450, every=2.0), few)).used_per_hour is None


def test_sums_go_on_in_the_next_launch() -> None:
    usage = story((0.0, "launch", {}), *steps(0, 100, every=2.0))
    again = Usage.from_json(usage.to_json())
    assert again.duty == pytest.approx(usage.duty) and again.tokens == usage.tokens
    again.begin(50.0)
    again.step(52.0, step_s=1.0, tokens=100.0)
    assert again.open_s == usage.open_s + 2.0
    for raw in (None, [], {"open_s": "x", "tokens": -1.0, "odd": 3}, {"recent_worked_s": 5.0}):
        assert Usage.from_json(raw).duty is None


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
keys = st.sampled_from(
    ["t", "step_s", "tok_s", "order", "verb", "ok", "power_w", "battery_percent", "plugged", "duty", "kind"]
)


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.dictionaries(keys, plain)), max_size=12))
def test_no_record_breaks_it(records: list[tuple[str, dict[str, Any]]]) -> None:
    usage = Usage()
    for kind, values in records:
        usage.fold({"kind": kind, "t": 1.0, **values})
    assert usage.duty is None or 0.0 <= usage.duty <= 1.0
    assert usage.open_s >= 0.0 and usage.waited_s >= 0.0
    assert usage.power_w is None or usage.power_w > 0.0


def test_what_the_trainer_showed_comes_before_what_its_story_tells() -> None:
    usage = Usage(recent_open_s=20.0, recent_worked_s=10.0, recent_tokens=1000.0)
    assert rates({}, usage) == rates({"tok_s": None, "tok_s_sustained": "many"}, usage) == (100.0, 50.0)
    assert rates({"tok_s": 120.0, "tok_s_sustained": 45.0}, usage) == (120.0, 45.0)
    assert rates({"tok_s": 120.0}, Usage()) == (120.0, None)
