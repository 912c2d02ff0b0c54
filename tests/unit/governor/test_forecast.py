"""Forecasts: rests, nights and chargers in the time, watts in the energy, unknown stays unknown."""

from __future__ import annotations

import time
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.governor.forecast import (
    WEEK_S,
    Battery,
    Charge,
    Forecast,
    _end,
    charge_share,
    energy,
    expect,
    forecast,
    wh_of,
)
from ondevice.governor.hours import parse_hours
from ondevice.governor.presets import resolve
from ondevice.run.schema import Limits
from ondevice.run.usage import Usage

ROME = ZoneInfo("Europe/Rome")
LIMITS = Limits(preset="balanced")


def test_rests_count() -> None:
    found = forecast(1000.0, burst_tok_s=10.0, duty=0.5, now=100.0)
    assert found.sustained_tok_s == 5.0 and found.done_t == 300.0 and found.eta_s(150.0) == 150.0


def test_nights_only() -> None:
    noon = datetime(2026, 3, 3, 12, tzinfo=ROME).timestamp()
    ten_hours = 36_000 * 10.0
    found = forecast(ten_hours, burst_tok_s=10.0, duty=1.0, now=noon, windows=parse_hours("22:00-06:00"), zone=ROME)
    assert found.done_t == datetime(2026, 3, 5, 0, tzinfo=ROME).timestamp()
    assert found.closed_s == pytest.approx(26 * 3600)


def test_what_never_ends_has_no_end() -> None:
    assert forecast(10.0, burst_tok_s=10.0, duty=0.0, now=0.0).done_t is None
    assert forecast(1e30, burst_tok_s=10.0, duty=1.0, now=0.0).done_t is None
    assert forecast(0.0, burst_tok_s=0.0, duty=0.0, now=7.0).done_t == 7.0


@given(st.floats(1.0, 1e6), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_more_duty_is_never_later(tokens: float, one: float, other: float) -> None:
    windows = parse_hours("mon-fri 22:30-06:45, sat 00:00-24:00")
    low, high = sorted((one, other))
    ends = [
        forecast(tokens, burst_tok_s=30.0, duty=duty, now=1.79e9, windows=windows, zone=ROME).done_t
        for duty in (high, low)
    ]
    assert ends[0] is not None and ends[1] is not None and ends[0] <= ends[1] + 1e-3


def test_time_on_the_charger() -> None:
    assert charge_share(None) == 1.0
    assert charge_share(Charge(used_per_hour=-5, charged_per_hour=0, floor_percent=30, target_percent=40)) == 1.0
    assert charge_share(Charge(used_per_hour=30, charged_per_hour=10, floor_percent=30, target_percent=80)) == 0.25
    assert charge_share(Charge(used_per_hour=30, charged_per_hour=0, floor_percent=30, target_percent=80)) == 0.0


def test_energy_and_its_price() -> None:
    found = energy(wh_of(3.6, 100.0), tokens_left=5e6, price_per_kwh=0.3)
    assert found.wh_per_mtok == pytest.approx(10.0)
    assert found.wh_left == pytest.approx(50.0)
    assert found.price_per_mtok == pytest.approx(0.003) and found.price_left == pytest.approx(0.015)


@pytest.mark.parametrize(("power_w", "tok_s"), [(None, 10.0), (-3.0, 10.0), (0.0, 10.0), (4.0, 0.0)])
def test_unknown_power_stays_unknown(power_w: float | None, tok_s: float) -> None:
    found = energy(wh_of(power_w, tok_s), tokens_left=1e6, price_per_kwh=0.3)
    assert found.wh_per_mtok is None and found.price_left is None


def seen(**sums: float) -> Usage:
    """Half the time worked, at 10 tokens a second of work."""
    plain = {"recent_open_s": 100.0, "recent_worked_s": 50.0, "recent_tokens": 500.0}
    return Usage(**(plain | sums))


def ahead(usage: Usage, battery: Battery, *, tokens_left: float = 18_000.0, limits: Limits = LIMITS) -> Forecast:
    policy = resolve(limits, handheld=True)
    found = expect(usage, policy, battery, tokens_left=tokens_left, now=0.0, zone=ROME)
    assert found is not None
    return found


def test_before_the_first_step_nothing_is_foretold() -> None:
    assert expect(Usage(), resolve(LIMITS, handheld=True), Battery(), tokens_left=5.0, now=0.0) is None


def test_rests_are_as_they_were_lately() -> None:
    found = ahead(seen(), Battery())
    assert (found.burst_tok_s, found.sustained_tok_s, found.done_t, found.battery_s) == (10.0, 5.0, 3600.0, None)


def test_a_battery_that_lasts_costs_no_time_and_one_that_does_not_costs_charging() -> None:
    draining = {"drained_percent": 10.0, "drain_s": 3600.0}  # ten percent an hour
    assert ahead(seen(**draining), Battery(percent=41.0, plugged=False)).done_t == 3600.0
    short = ahead(seen(**draining), Battery(percent=35.0, plugged=False))
    assert short.battery_s == pytest.approx(1800.0)
    assert short.done_t is None, "nobody knows when it will be charged"
    assert (short.sustained_tok_s, short.open_s) == (5.0, 3600.0), "what it would take with a charger is known"
    charging = {"charged_percent": 30.0, "charge_s": 3600.0}
    there = ahead(seen(**draining, **charging), Battery(percent=35.0, plugged=False))
    assert there.sustained_tok_s == pytest.approx(5.0 * 0.75) and there.done_t == pytest.approx(4800.0)


def test_a_charger_that_is_not_there_has_no_end() -> None:
    plugged_only = Limits(preset="balanced", plugged_only=True)
    assert ahead(seen(), Battery(percent=90.0, plugged=False), limits=plugged_only).done_t is None
    assert ahead(seen(), Battery(percent=90.0, plugged=True), limits=plugged_only).done_t == 3600.0
    assert ahead(seen(), Battery(percent=20.0, plugged=False)).done_t is None


def test_hours_count_and_far_ends_are_found_at_once() -> None:
    limits = Limits(preset="balanced", hours="22:00-06:00")
    monday = datetime(2026, 3, 2, 12, tzinfo=ROME).timestamp()
    for weeks in (0, 1, 30):
        done_t = _end(monday, 4 * 3600.0 + weeks * 7 * 8 * 3600.0, parse_hours("22:00-06:00"), ROME)
        assert done_t is not None
        night = datetime.fromtimestamp(done_t, ROME)
        assert abs(done_t - monday - weeks * WEEK_S - 14 * 3600.0) <= 3600.0, night  # clocks change once
    began = time.process_time()
    assert ahead(seen(), Battery(), tokens_left=1e9, limits=limits).done_t is None
    assert time.process_time() - began < 0.3
