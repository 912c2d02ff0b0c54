"""What a status foretells: by the limits that hold now, from what the run did so far."""

from __future__ import annotations

import pytest

from ondevice.run.liveness import read_status
from ondevice.run.schema import Limits
from ondevice.run.telemetry import TelemetryWriter
from ondevice.run.usage import Usage
from ondevice.train.outlook import Outlook
from ondevice.train.pulse import Pulse

FORETOLD = {"tok_s_sustained", "eta_s", "done_t", "open_s", "battery_s", "mean_power_w", "wh_per_mtok", "wh_left"}


@pytest.fixture
def outlook():
    """Half an hour of steps that were worked half of the time, 100 tokens a second of work, on a falling battery."""
    found = Outlook(Usage(), handheld=True)
    found.usage.begin(0.0)
    for n in range(1, 901):
        found.usage.step(2.0 * n, step_s=1.0, tokens=100.0)
        if n % 15 == 0:
            percent = 90.0 - n // 150
            found.feel(2.0 * n, {"battery_percent": percent, "plugged": False, "power_w": 3.0})
    return found


def test_before_the_first_step_it_tells_no_future():
    told = Outlook(Usage(), handheld=True).told(tokens_left=100.0, now=0.0)
    assert "usage" in told and not set(told) & FORETOLD


def test_rate_end_battery_and_energy(outlook):
    told = outlook.told(tokens_left=360_000.0, now=1e9)
    assert set(told) >= FORETOLD | {"usage", "price_per_mtok", "price_left"}
    assert told["tok_s_sustained"] == pytest.approx(50.0, rel=1e-3)
    assert told["eta_s"] == pytest.approx(7200.0, rel=1e-3) and told["done_t"] == pytest.approx(1e9 + told["eta_s"])
    assert told["mean_power_w"] == pytest.approx(3.0) and told["battery_s"] is None, "it lasts"
    assert told["wh_per_mtok"] == pytest.approx(16.7, abs=0.1)
    assert told["wh_left"] == pytest.approx(told["wh_per_mtok"] * 0.36) and told["price_left"] is None


def test_limits_that_change_change_it_at_once(outlook):
    outlook.limits = Limits(price_per_kwh=0.5, battery_floor_percent=80.0)
    told = outlook.told(tokens_left=360_000.0, now=1e9)
    assert told["price_per_mtok"] == pytest.approx(told["wh_per_mtok"] * 0.0005)
    assert 0 < told["battery_s"] < 1800 and told["done_t"] is None, "nobody plugs it in"
    assert told["open_s"] == pytest.approx(7200.0, rel=1e-3)
    outlook.limits = Limits(plugged_only=True)
    assert outlook.told(tokens_left=360_000.0, now=1e9)["done_t"] is None


def test_the_next_launch_goes_on_from_the_status(make):
    run = make(name="again")
    story = TelemetryWriter(run.telemetry, 1)
    first = Pulse(run, run.read_recipe(), launch=1, step=0, story=story)
    first.begin()
    first.after_step(1.0)
    first.beat(state="running", step=1, tokens=192, force=True)
    story.close()
    assert read_status(run)["usage"]["tokens"] == first.tokens_per_step
    story = TelemetryWriter(run.telemetry, 2)
    second = Pulse(run, run.read_recipe(), launch=2, step=1, story=story)
    second.begin()
    status = second.beat(state="running", step=1, tokens=192, force=True)
    story.close()
    assert status is not None and status["usage"]["tokens"] == first.tokens_per_step
    assert status["eta_s"] > 0, "known before the first step of this launch"
