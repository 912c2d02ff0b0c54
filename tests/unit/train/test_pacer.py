"""The governor's orders carried out: rests are the share that was ordered, and never change what is learned."""

import threading
import time

import pytest

from ondevice.device.readings import Reading
from ondevice.device.world import Machine
from ondevice.governor.debt import LONGEST_CREDIT_S, LONGEST_DEBT_S
from ondevice.governor.order import Order
from ondevice.governor.threads import Wish
from ondevice.run import control
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train import pacer as pacer_module
from ondevice.train.launch import launch
from ondevice.train.pacer import Pacer
from tests.displays import Silent


class Warm:
    """Sensors of a phone whose battery has that temperature."""

    battery_c = 30.0

    def __init__(self, folder):
        self.unknown = {}

    def read(self):
        return Reading(
            t=time.time(),
            rss_mb=300.0,
            available_mb=3000.0,
            total_mb=4000.0,
            disk_free_mb=9000.0,
            battery_c=Warm.battery_c,
            battery_percent=90.0,
            plugged=True,
            charging="full",
        )


@pytest.fixture
def warm(monkeypatch):
    monkeypatch.setattr("ondevice.train.launch.Sensors", Warm)
    monkeypatch.setattr(Warm, "battery_c", 30.0)
    return Warm


def _ordered(monkeypatch, order):
    monkeypatch.setattr(pacer_module, "decide", lambda reading, limits, history, now: (order, history))
    return Pacer(Machine(Warm(None)), threads=1)


@pytest.mark.parametrize("duty", [0.1, 0.5, 0.9])
def test_rests_are_the_share_that_was_ordered(monkeypatch, duty):
    pacer = _ordered(monkeypatch, Order(duty=duty, reason="warm"))
    worked_s = rested_s = 0.0
    for turn in range(200):
        pacer.decide(Limits())
        rest_s = min(0.2, pacer.owed_s)
        pacer.rested(rest_s)
        rested_s += rest_s
        work_s = 0.001 * (1 + turn % 7)
        pacer.after(work_s, piece=True)
        worked_s += work_s
    pacer.decide(Limits())
    assert (worked_s / (worked_s + rested_s + pacer.owed_s)) == pytest.approx(duty, rel=1e-6)


def test_a_rest_is_never_owed_for_ever_and_freedom_forgives_it(monkeypatch):
    pacer = _ordered(monkeypatch, Order(duty=0.01, reason="hot"))
    pacer.after(100.0, piece=True)
    pacer.decide(Limits())
    assert pacer.owed_s == LONGEST_DEBT_S
    monkeypatch.setattr(pacer_module, "decide", lambda reading, limits, history, now: (Order(), history))
    pacer.decide(Limits())
    assert pacer.owed_s == 0.0


def test_only_changes_are_news(monkeypatch):
    pacer = _ordered(monkeypatch, Order())
    assert not pacer.decide(Limits())[1]  # working from the start is none
    for order, news in ((Order(duty=0.95), False), (Order(duty=0.5), True), (Order(kind="rest", duty=0.0), True)):
        monkeypatch.setattr(pacer_module, "decide", lambda *given, order=order: (order, given[2]))
        assert pacer.decide(Limits())[1] is news


def _bytes(run, step=24):
    folder = Store(run.checkpoints).open(step).path
    return [(folder / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")]


def test_a_run_that_rests_learns_what_one_learns_that_does_not(make, warm, monkeypatch):
    straight = make(name="straight")
    launch(straight, display=Silent())
    duties = iter([1.0, 0.5, 0.8, 0.3] * 10_000)
    monkeypatch.setattr(
        pacer_module,
        "decide",
        lambda reading, limits, history, now: (Order(duty=next(duties), reason="Resting: a test."), history),
    )
    rested = make(name="rested")
    display = Silent()
    launch(rested, display=display)
    assert _bytes(rested) == _bytes(straight)
    orders = [record for record in read_records(rested.telemetry) if record["kind"] == "order"]
    assert orders and {record["why"] for record in orders} == {"Resting: a test."}
    assert "Resting: a test." in display.said


def test_a_hot_battery_stops_the_work_until_it_has_cooled(make, warm):
    warm.battery_c = 50.0
    run = make("limits.max_battery_c=39", "limits.back_off_s=0", name="hot")
    display = Silent()
    thread = threading.Thread(target=launch, args=(run,), kwargs={"display": display})
    thread.start()
    try:
        _wait_for(lambda: read_liveness(run).state == "resting")
        assert "50" in read_status(run)["wait"]
        assert read_status(run)["step"] == 0
        warm.battery_c = 25.0
    finally:
        thread.join(60)
    assert not thread.is_alive()
    assert list(read_records(run.telemetry))[-1]["outcome"] == "finished"
    assert any("50" in text for text in display.said)


def test_outside_its_hours_it_waits_and_new_hours_hold_at_once(make, warm):
    from datetime import datetime, timedelta

    now = datetime.now()
    closed = f"{now + timedelta(hours=3):%H:%M}-{now + timedelta(hours=4):%H:%M}"
    run = make(f'limits.hours="{closed}"', name="night")
    thread = threading.Thread(target=launch, args=(run,), kwargs={"display": Silent()})
    thread.start()
    try:
        _wait_for(lambda: read_liveness(run).state == "waiting")
        assert closed in read_status(run)["wait"]
        control.send(run, "limit", {"hours": None}, sender="test")
    finally:
        thread.join(60)
    assert not thread.is_alive()
    assert read_status(run)["step"] == 24


def _wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize(("battery_c", "most"), [(30.0, 1.0), (36.5, 0.7), (38.0, 0.3), (39.5, 0.0), (None, 0.5)])
def test_a_launch_begins_gently_on_a_phone_that_is_hot_or_says_nothing_yet(warm, monkeypatch, battery_c, most):
    """Whatever the launch before knew of the heat died with it."""
    monkeypatch.setenv("TERMUX_VERSION", "0.118.3")
    warm.battery_c = battery_c
    order, _ = Pacer(Machine(Warm(None)), threads=4).decide(Limits())
    assert order.duty <= most and (order.duty > 0) == (most > 0), order


def test_work_is_told_to_the_world_and_takes_what_it_takes_there():
    told = []

    class Slow(Machine):
        def worked(self, busy_s, *, piece, threads):
            told.append((busy_s, piece, threads))
            return 2 * busy_s

    warm = Slow(Warm(None))
    pacer = Pacer(warm, threads=3)
    pacer.after(1.0, piece=True)
    pacer.refitted(Wish(kind="fewer", threads=2, why=""), threads=2)
    pacer.after(0.5, piece=False)
    assert told == [(1.0, True, 3), (0.5, False, 2)]
    pacer.decide(Limits(duty_max=0.5, preset="desk"))
    assert pacer.owed_s == pytest.approx(3.0, rel=0.01), "the rest is for the time it took there"


def test_a_rest_that_was_a_little_too_long_counts_for_the_next_one(monkeypatch):
    pacer = _ordered(monkeypatch, Order(duty=0.5, reason="warm"))
    pacer.after(1.0, piece=True)
    pacer.decide(Limits())
    pacer.rested(1.05)
    pacer.after(1.0, piece=True)
    pacer.decide(Limits())
    assert pacer.owed_s == pytest.approx(0.95)
    pacer.rested(100.0)
    assert pacer.owed_s == -LONGEST_CREDIT_S
    pacer.rested(100.0)
    assert pacer.owed_s == -LONGEST_CREDIT_S, "a wait for something else pays for nothing"


def test_processor_time_counts_within_pieces_only(monkeypatch):
    world, told = Machine(Warm(None)), []
    spent = {"s": 10.0}
    monkeypatch.setattr(world, "processor", lambda: spent["s"])
    monkeypatch.setattr(
        pacer_module, "observe", lambda history, step_s, now, cpu_s: told.append((step_s, cpu_s)) or history
    )
    pacer = Pacer(world, threads=1)
    for _ in range(3):
        spent["s"] += 1.5  # looking around while it rests
        pacer.before()
        spent["s"] += 2.0
        pacer.after(1.0, piece=True)
    assert told == [(1.0, 2.0)] * 3
