"""Forecasts: rests, nights and chargers in the time, watts in the energy, unknown stays unknown."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.governor.forecast import Charge, charge_share, energy, forecast
from ondevice.governor.hours import parse_hours

ROME = ZoneInfo("Europe/Rome")


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
    found = energy(power_w=4.6, idle_w=1.0, tok_s=100.0, tokens_left=5e6, price_per_kwh=0.3)
    assert found.wh_per_mtok == pytest.approx(10.0)
    assert found.wh_left == pytest.approx(50.0)
    assert found.price_per_mtok == pytest.approx(0.003) and found.price_left == pytest.approx(0.015)


@pytest.mark.parametrize(("power_w", "tok_s"), [(None, 10.0), (-3.0, 10.0), (4.0, 0.0)])
def test_unknown_power_stays_unknown(power_w: float | None, tok_s: float) -> None:
    found = energy(power_w=power_w, tok_s=tok_s, tokens_left=1e6, price_per_kwh=0.3)
    assert found.wh_per_mtok is None and found.price_left is None
