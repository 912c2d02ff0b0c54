"""Little room under a limit: pieces are steered one by one where one fills much of it, and few orders are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ondevice.device.simulate import SimulatedPhone
from ondevice.device.simulate_profile import load_profile
from ondevice.device.simulate_sensors import SensorKind
from ondevice.governor.control import LONG_S
from ondevice.governor.debt import Debt
from ondevice.governor.decide import decide
from ondevice.governor.history import begin, observe
from ondevice.governor.long_piece import is_long
from ondevice.governor.node import first_seen
from ondevice.governor.order import is_change
from ondevice.governor.signals import BATTERY
from ondevice.run.schema import Limits

LIMITS = Limits(
    preset="balanced",
    max_battery_c=40.0,
    max_skin_c=70.0,
    max_cpu_c=110.0,
    battery_floor_percent=5.0,
    charge_target_percent=5.0,
)
NODE = replace(first_seen(30.0, 0.0, BATTERY.bodies[0], 0.0), warming=0.15)


@pytest.mark.parametrize(("room_c", "long"), [(-1.0, True), (0.6, True), (1.4, True), (1.6, False), (12.0, False)])
def test_a_short_piece_is_long_where_it_warms_by_much_of_the_room(room_c: float, long: bool) -> None:
    assert is_long(NODE, 30.0 + room_c, 2.0) is long
    assert is_long(NODE, 30.0 + room_c, LONG_S), "whatever the room"


def lived(
    *, ambient_c: float, piece_s: float, minutes: float, lost: tuple[str, ...] = (), profile: str = "galaxy-s25plus"
) -> tuple[float, int, float]:
    """Seconds of work, orders told in the second half, and the warmest battery, of a phone that obeys as a run does."""
    sensors = SensorKind(lost=frozenset(lost))
    phone = SimulatedPhone(
        load_profile(profile), ambient_c=ambient_c, plugged=True, battery_percent=100.0, seed=5, sensors=sensors
    )
    history = begin(handheld=True, battery=True, threads=phone.profile.threads, piece_s=piece_s)
    debt, told, changes, warmest_c, began_s = Debt(), None, 0, 0.0, phone.now_s
    while phone.now_s - began_s < 60 * minutes:
        order, history = decide(phone.read(), LIMITS, history, phone.t)
        if is_change(told, order):
            changes += phone.now_s - began_s > 30 * minutes
            told = order
        debt = debt.under(order)
        if order.kind == "run" and debt.due_s <= 1e-3:
            took_s = phone.work(piece_s)
            history, debt = observe(history, took_s, phone.t), debt.after(took_s)
        else:
            rest_s = min(5.0, debt.due_s) if order.kind == "run" else 5.0
            phone.advance(rest_s, duty=0.0)
            debt = debt.rested(rest_s)
        warmest_c = max(warmest_c, phone.network.temperature("battery"))
    return phone.worked_s, changes, warmest_c


def test_where_idling_is_nearly_too_warm_some_work_is_done_and_it_never_stops_for_good() -> None:
    worked_s, changes, warmest_c = lived(ambient_c=38.0, piece_s=2.0, minutes=20)
    assert worked_s >= 6.0 and changes <= 1 and warmest_c <= 40.0


def test_android_alone_keeps_the_first_approach() -> None:
    worked_s, _, warmest_c = lived(ambient_c=28.0, piece_s=2.0, minutes=10, lost=("battery_c", "cpu_c", "skin_c"))
    assert worked_s > 150.0 and warmest_c <= 40.05


def test_of_a_long_piece_the_mean_is_told() -> None:
    worked_s, changes, warmest_c = lived(profile="midrange", ambient_c=35.0, piece_s=25.0, minutes=20)
    assert worked_s > 450.0 and changes <= 3 and warmest_c <= 40.0
