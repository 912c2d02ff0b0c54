"""Orders: what forbids work, how much heat allows, and what holds whatever the readings say."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.device.readings import Reading
from ondevice.governor.decide import decide
from ondevice.governor.history import History, begin, observe, refitted, worked
from ondevice.governor.hours import civil, is_open, parse_hours
from ondevice.governor.order import Order, is_change
from ondevice.governor.signals import HARD_OVER_C
from ondevice.governor.threads import Wish, wanted
from ondevice.run.schema import Limits

ROME = ZoneInfo("Europe/Rome")
NOON = datetime(2026, 3, 3, 12, tzinfo=ROME).timestamp()
LIMITS = Limits(preset="balanced", max_battery_c=39.0)
PHONE = begin(handheld=True, battery=True)


def cool(t: float = NOON, **values: Any) -> Reading:
    given_values = {
        "battery_c": 30.0,
        "battery_percent": 80.0,
        "plugged": True,
        "available_mb": 4000.0,
        "disk_free_mb": 9000.0,
    }
    return Reading(t=t, total_mb=8000.0, **{**given_values, **values})


def order(reading: Reading, limits: Limits = LIMITS, history: History = PHONE, now: float = NOON) -> Order:
    return decide(reading, limits, history, now, zone=ROME)[0]


def later(history: History, reading: Reading, now: float, limits: Limits = LIMITS) -> tuple[Order, History]:
    return decide(replace(reading, t=now), limits, history, now, zone=ROME)


def test_a_cool_phone_works_all_the_time_and_says_so() -> None:
    found = order(cool())
    assert (found.kind, found.duty) == ("run", 1.0)
    assert found.reason == "Working all the time: battery 30.0 C, limit 39."


def test_near_the_limit_it_rests_a_share_and_says_why() -> None:
    found = order(cool(battery_c=37.6))
    assert found.kind == "run" and 0.0 < found.duty < 0.9
    assert found.reason == f"Resting {round(100 * (1 - found.duty))} %: battery 37.6 C, limit 39."


def test_above_the_maximum_it_stops_and_stays_stopped_for_the_back_off() -> None:
    limits = replace(LIMITS, resume_battery_c=37.0, back_off_s=300.0)
    stop, history = decide(cool(battery_c=40.1), limits, PHONE, NOON, zone=ROME)
    assert (stop.kind, stop.duty, stop.until_t) == ("rest", 0.0, NOON + 300.0)
    assert stop.reason.startswith("Stopped: battery 40.1 C")
    soon, history = later(history, cool(battery_c=30.0), NOON + 299.0, limits)
    assert soon.kind == "rest"
    warm, history = later(history, cool(battery_c=37.4), NOON + 400.0, limits)
    assert warm.kind == "rest" and "37" in warm.reason
    again, _ = later(history, cool(battery_c=36.0), NOON + 500.0, limits)
    assert again.kind == "run"


@pytest.mark.parametrize("status", [3, 4, 5, 6])
def test_androids_severe_stops_everything(status: int) -> None:
    assert order(cool(thermal_status=status)).kind == "rest"


def test_androids_moderate_halves() -> None:
    assert order(cool(thermal_status=2)).duty <= 0.5
    assert order(cool(thermal_status=1)).duty == 1.0


@pytest.mark.parametrize(("name", "value"), [("skin_c", 60.0), ("cpu_c", 108.0), ("headroom", 1.05)])
def test_every_sensor_has_a_maximum(name: str, value: float) -> None:
    assert order(cool(**{name: value})).kind == "rest"


def test_unknown_heat_on_a_phone_is_half_at_most() -> None:
    assert order(cool(battery_c=None)).duty == 0.5
    assert "no temperature can be read" in order(cool(battery_c=None)).reason


def test_a_stale_temperature_is_unknown() -> None:
    assert order(replace(cool(), ages_s={"battery_c": 300.0})).duty == 0.5
    assert order(cool(), now=NOON + 300.0).duty == 0.5
    assert order(replace(cool(battery_c=90.0), ages_s={"battery_c": 300.0})).kind == "run"


def test_a_mains_machine_without_sensors_runs_freely() -> None:
    history = begin(handheld=False, battery=False)
    found = order(Reading(t=NOON), Limits(), history)
    assert (found.kind, found.duty) == ("run", 1.0)


def test_a_battery_that_is_seen_is_remembered() -> None:
    history = begin(handheld=False, battery=False)
    _, history = decide(cool(), Limits(), history, NOON, zone=ROME)
    found, _ = later(history, Reading(t=NOON), NOON + 60.0, Limits())
    assert found.duty == 0.5


def test_slow_steps_lower_the_duty_where_nothing_can_be_read() -> None:
    history, now = PHONE, NOON
    for k in range(400):
        now += 4.0
        history = observe(history, 2.0 if k < 20 else 3.0, now)
        found, history = later(history, cool(battery_c=None), now)
    assert found.kind == "run" and found.duty < 0.2
    assert "1.50 times" in found.reason


def test_hours() -> None:
    limits = replace(LIMITS, hours="22:30-06:45")
    found = order(cool(), limits)
    assert (found.kind, found.until_t) == ("wait", datetime(2026, 3, 3, 22, 30, tzinfo=ROME).timestamp())
    assert "22:30" in found.reason
    night = datetime(2026, 3, 3, 23, tzinfo=ROME).timestamp()
    assert order(cool(night), limits, now=night).kind == "run"


def test_hours_that_cannot_be_read_wait_with_the_reason() -> None:
    found = order(cool(), replace(LIMITS, hours="at night"))
    assert found.kind == "wait" and "at night" in found.reason


def test_a_long_wait_is_left_to_whoever_starts_the_run_again() -> None:
    history = begin(handheld=True, battery=True, relaunched=True)
    limits = replace(LIMITS, hours="22:30-06:45")
    assert order(cool(), limits, history).kind == "leave"
    late = datetime(2026, 3, 3, 22, 15, tzinfo=ROME).timestamp()
    assert order(cool(late), limits, history, now=late).kind == "wait"


def test_a_wait_without_an_end_in_sight_is_left_after_twenty_minutes() -> None:
    history = begin(handheld=True, battery=True, relaunched=True)
    kinds = []
    for minute in range(0, 30, 5):
        found, history = later(history, cool(battery_percent=10.0, plugged=False), NOON + 60.0 * minute)
        kinds.append(found.kind)
    assert kinds == ["wait"] * 5 + ["leave"]


def test_the_screen() -> None:
    limits = replace(LIMITS, pause_when_screen_on=True)
    found, history = decide(cool(screen_on=True), limits, PHONE, NOON, zone=ROME)
    assert found.kind == "wait" and "screen" in found.reason
    assert later(history, cool(screen_on=False), NOON + 30.0, limits)[0].kind == "wait"
    assert later(history, cool(screen_on=False), NOON + 90.0, limits)[0].kind == "run"
    assert order(cool(screen_on=None), limits).kind == "run"


def test_little_memory_saves_and_shrinks_until_there_is_enough() -> None:
    found, history = decide(cool(available_mb=900.0), LIMITS, PHONE, NOON, zone=ROME)
    assert found.kind == "run" and found.save and found.shrink and "Memory" in found.reason
    between, history = later(history, cool(available_mb=1000.0), NOON + 60.0)
    assert between.shrink
    enough, _ = later(history, cool(available_mb=1300.0), NOON + 120.0)
    assert not enough.shrink and not enough.save


def test_fewer_threads_are_advised_when_heat_binds_for_long() -> None:
    history, now = begin(handheld=True, battery=True, threads=4), NOON
    for k in range(80):
        now += 10.0
        history = observe(history, 2.0, now)
        found, history = later(history, cool(battery_c=38.0 + k % 2), now)
    assert found.threads == 2 and "2 threads" in found.reason
    fewer = Wish(kind="fewer", why="it is hot", threads=2)
    found, _ = later(refitted(history, fewer, threads=2), cool(battery_c=38.0), now + 10.0)
    assert found.threads is None


@pytest.mark.parametrize(("cpu_s", "hot"), [(2.0, False), (3.6, True), (None, True)])
def test_without_a_thermometer_other_programs_are_not_taken_for_heat(cpu_s: float | None, hot: bool) -> None:
    blind, now = cool(battery_c=None), NOON
    history = begin(handheld=True, battery=True, threads=4)
    for step_s, busy_s in [(2.0, cpu_s and 2.0)] * 20 + [(3.6, cpu_s)] * 160:
        now += 2 * step_s
        history = observe(history, step_s, now, busy_s)
        found, history = later(history, blind, now)
    assert (found.duty < 0.3) is hot
    assert found.duty == 0.5 or hot
    wish = wanted(history.binding)
    assert (wish is not None and wish.kind == "retune") is not hot


def test_limits_may_change_at_any_moment() -> None:
    _, history = decide(cool(battery_c=38.0), LIMITS, PHONE, NOON, zone=ROME)
    assert later(history, cool(battery_c=38.0), NOON + 5.0, replace(LIMITS, max_battery_c=36.0))[0].kind == "rest"
    assert later(history, cool(battery_c=38.0), NOON + 5.0, replace(LIMITS, duty_max=0.2))[0].duty <= 0.2


def test_a_clock_set_back_forgets_times_and_goes_on() -> None:
    _, history = decide(cool(battery_c=41.0), LIMITS, PHONE, NOON, zone=ROME)
    back, history = later(history, cool(), NOON - 7200.0)
    assert back.kind == "rest" and back.until_t == NOON - 7200.0 + 300.0
    assert later(history, cool(), NOON - 7200.0 + 400.0)[0].kind == "run"


def test_a_clock_that_jumps_ahead_goes_on() -> None:
    history = observe(PHONE, 2.0, NOON)
    _, history = decide(cool(), LIMITS, history, NOON, zone=ROME)
    found, history = later(history, cool(), NOON + 1e8)
    assert found.kind == "run" and observe(history, 2.0, NOON + 1e8 + 5).work.spans


def test_what_counts_as_news() -> None:
    run = Order(duty=0.5)
    assert is_change(None, run)
    assert not is_change(run, replace(run, duty=0.59, reason="other words"))
    assert is_change(run, replace(run, duty=0.61))
    assert is_change(run, replace(run, kind="rest"))
    assert is_change(run, replace(run, shrink=True))


# --- whatever the readings say ----------------------------------------------------------------------------------------

TEMPERATURES = st.none() | st.floats(1, 120)
READINGS = st.fixed_dictionaries(
    {
        "battery_c": TEMPERATURES,
        "cpu_c": TEMPERATURES,
        "skin_c": TEMPERATURES,
        "headroom": st.none() | st.floats(0, 2),
        "thermal_status": st.none() | st.integers(0, 6),
        "battery_percent": st.none() | st.floats(0, 100),
        "plugged": st.none() | st.booleans(),
        "charging": st.none() | st.sampled_from(["charging", "discharging", "full", "not_charging"]),
        "screen_on": st.none() | st.booleans(),
        "available_mb": st.none() | st.floats(0, 8000),
        "disk_free_mb": st.none() | st.floats(0, 1e6),
        "freq_share": st.none() | st.floats(0, 1),
    }
)
STEPS = st.lists(
    st.tuples(
        READINGS, st.floats(-50, 4000), st.floats(0.01, 60), st.dictionaries(st.just("battery_c"), st.floats(0, 200))
    ),
    min_size=1,
    max_size=12,
)
WISHES = st.builds(
    Limits,
    preset=st.sampled_from(["auto", "gentle", "balanced", "plugged-overnight", "desk"]),
    max_battery_c=st.none() | st.floats(20, 60),
    duty_max=st.none() | st.floats(0.01, 1),
    hours=st.sampled_from([None, "22:30-06:45", "mon-fri 09:00-17:00, sat 00:00-24:00"]),
    plugged_only=st.none() | st.booleans(),
    pause_when_screen_on=st.none() | st.booleans(),
)
BEGINNINGS = st.builds(begin, handheld=st.booleans(), battery=st.booleans(), relaunched=st.booleans())


@settings(max_examples=80, deadline=None)
@given(steps=STEPS, limits=WISHES, history=BEGINNINGS)
def test_no_reading_leads_to_a_bad_order(steps: list[Any], limits: Limits, history: History) -> None:
    now = NOON
    for values, passed_s, step_s, ages_s in steps:
        now += passed_s
        reading = Reading(t=now, total_mb=8000.0, ages_s=ages_s, **values)
        history = observe(history, step_s, now)
        before = history
        found, history = decide(reading, limits, before, now, zone=ROME)
        assert (found, history) == decide(reading, limits, before, now, zone=ROME)  # pure
        assert 0.0 <= found.duty <= 1.0 and found.reason
        assert (found.kind == "run") == (found.duty > 0.0)
        check_stops(found, reading, limits, now)
        assert History.from_json(json.loads(json.dumps(history.to_json()))) == history


def check_stops(found: Order, reading: Reading, limits: Limits, now: float) -> None:
    if found.kind != "run":
        return
    fresh = reading.ages_s.get("battery_c", 0.0) <= 90.0
    if reading.battery_c is not None and limits.max_battery_c is not None and fresh:
        assert reading.battery_c < limits.max_battery_c + HARD_OVER_C
    assert reading.thermal_status is None or reading.thermal_status < 3
    assert is_open(parse_hours(limits.hours or ""), civil(now, ROME))
    assert not limits.plugged_only or reading.plugged or (reading.battery_percent is None and reading.plugged is None)
    assert limits.duty_max is None or found.duty <= limits.duty_max


@pytest.mark.parametrize(("name", "coolest"), [("battery_c", 0.9), ("skin_c", 0.5), ("cpu_c", 0.9)])
def test_a_device_that_is_steadily_hotter_gets_no_more_duty(name: str, coolest: float) -> None:
    """A single reading may be taken for another body or a gust; a settled one may not. Where a battery is only felt,
    long rests are kept, between which the skin warms most."""
    limits = replace(LIMITS, max_skin_c=39.0, max_cpu_c=39.0)
    duties = []
    for celsius in range(25, 43):
        history, now = PHONE, NOON
        for _ in range(30):
            now += 20.0
            history = observe(history, 2.0, now)
            found, history = later(history, measured(name, celsius), now, limits)
        duties.append(found.duty)
    assert all(hotter <= cooler + 0.02 for cooler, hotter in itertools.pairwise(duties)), duties
    assert duties[0] > coolest and duties[-1] == 0.0


def measured(name: str, celsius: float) -> Reading:
    return cool(**{"battery_c": None, name: float(celsius)})


@settings(max_examples=60, deadline=None)
@given(values=READINGS, lost=st.sampled_from(["battery_c", "cpu_c", "skin_c", "headroom"]))
def test_losing_the_only_sensor_is_no_licence(values: dict[str, Any], lost: str) -> None:
    alone = {"battery_c": None, "cpu_c": None, "skin_c": None, "headroom": None}
    found = order(cool(**{**alone, "freq_share": values["freq_share"]}))
    assert found.duty <= 0.5


def test_history_of_another_make_begins_afresh() -> None:
    assert History.from_json({"heat": {"nodes": 7}}) == History()
    assert History.from_json({"unheard_of": 1}) == History()


def test_other_work_counts_as_heat_but_not_as_pace() -> None:
    history = worked(observe(PHONE, 2.0, NOON), 30.0, NOON + 40.0)
    assert history.work.piece_s == 2.0 and len(history.pace.recent_s) == 1
    assert history.work.spans[-1][0] == NOON + 40.0


@pytest.mark.parametrize(
    ("piece_s", "late_s", "power_share"), [(2.0, 0.0, 0.25), (2.0, 1.0, 0.25), (2.0, 20.0, 1.0), (25.0, 0.0, 1.0)]
)
def test_the_clock_counts_while_short_pieces_are_worked(piece_s: float, late_s: float, power_share: float) -> None:
    """Long pieces are all alike, from rest on: what the clock is in their last second says nothing more. Nor does a
    reading from before the piece."""
    history, now = PHONE, NOON
    for _ in range(20):
        now += piece_s
        reading = cool(now - late_s, freq_share=0.5)
        _, history = decide(reading, LIMITS, observe(history, piece_s, now), now, zone=ROME)
    assert history.work.power_share == pytest.approx(power_share, rel=0.01)


def pressed_hard(history: History) -> float:
    """The duty after an hour of a machine that tells nothing; its steps take twice as long from the tenth minute on."""
    found, reading = Order(), Reading(t=NOON)
    for second in range(0, 3600, 5):
        now = NOON + second
        history = observe(history, 5.0 if second < 600 else 10.0, now)
        found, history = later(history, reading, now, Limits())
    return found.duty


def test_slow_steps_of_a_machine_on_the_mains_are_other_programs_doing() -> None:
    assert pressed_hard(begin(handheld=False, battery=False)) == 1.0
    assert pressed_hard(begin(handheld=False, battery=True)) < 0.3
    assert pressed_hard(begin(handheld=True, battery=True)) < 0.3
