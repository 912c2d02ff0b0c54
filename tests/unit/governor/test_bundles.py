"""How long a phone's rests are: longer where the battery has much room, so that warm cores do more for a joule."""

from __future__ import annotations

import pytest

from ondevice.device.readings import Reading
from ondevice.device.simulate import SimulatedPhone
from ondevice.device.simulate_profile import load_profile
from ondevice.governor.caps import BUNDLE_S
from ondevice.governor.debt import Debt
from ondevice.governor.decide import decide
from ondevice.governor.history import begin, observe
from ondevice.governor.order import Order, is_change
from ondevice.governor.work import PAUSE_S
from ondevice.run.schema import Limits

LIMITS = Limits(preset="balanced", max_battery_c=40.0, max_skin_c=43.0, max_cpu_c=110.0, battery_floor_percent=5.0)
T = 1.7e9


def ordered(battery_c: float, cpu_c: float | None, *, skin_c: float | None = None) -> Order:
    """After half a minute of work that changed no temperature."""
    history = begin(handheld=True, battery=True, piece_s=2.0)
    for now in (T, T + 12.0, T + 24.0, T + 36.0):
        reading = Reading(t=now, battery_c=battery_c, cpu_c=cpu_c, skin_c=skin_c)
        order, history = decide(reading, LIMITS, history, now)
        history = observe(history, 2.0, now + 2.0)
    return order


def test_rests_are_long_where_there_is_much_room_and_short_where_a_bundle_would_fill_it() -> None:
    cool, mild, warm = (ordered(battery_c, 45.0).rest_s for battery_c in (20.0, 35.0, 38.0))
    assert cool == pytest.approx(BUNDLE_S)
    assert cool > mild > PAUSE_S and warm == 0.0  # nothing between: it would not be told from a pause


def test_rests_are_no_longer_than_work_needs_near_the_processors_limit_or_where_it_cannot_be_read() -> None:
    assert ordered(20.0, 105.0).rest_s < ordered(20.0, 45.0).rest_s
    assert ordered(20.0, None).rest_s == 0.0


def test_a_body_near_its_limit_is_not_warmed_in_bundles_since_it_swings_with_each_of_them() -> None:
    cool, mild, warm = (ordered(20.0, 45.0, skin_c=skin_c).rest_s for skin_c in (30.0, 38.0, 42.0))
    assert cool == pytest.approx(BUNDLE_S)
    assert cool > mild > PAUSE_S and warm == 0.0


def test_a_long_bundle_is_part_of_a_steady_course_so_that_few_orders_are_news() -> None:
    """Of this phone a bundle takes 45 s, three times its rest."""
    profile = load_profile("galaxy-s25plus").without_certainty(0.3, seed=10)
    phone = SimulatedPhone(profile, ambient_c=18.0, plugged=True, battery_percent=100.0, seed=10)
    limits = Limits(preset="balanced", max_battery_c=40.0, max_skin_c=70.0, max_cpu_c=110.0)
    history, debt, told, changes = begin(handheld=True, battery=True, piece_s=2.0), Debt(), None, 0
    while phone.now_s < 2400.0:
        order, history = decide(phone.read(), limits, history, phone.t)
        if is_change(told, order):
            changes, told = changes + (phone.now_s > 1200.0), order
        debt = debt.under(order)
        if debt.due_s > 1e-3:
            rest_s = min(2.0, debt.due_s)
            phone.advance(rest_s, duty=0.0)
            debt = debt.rested(rest_s)
            continue
        piece_s = phone.work(2.0)
        history, debt = observe(history, piece_s, phone.t), debt.after(piece_s)
    assert changes <= 2 and phone.truth.battery_c <= 40.1 and phone.worked_s >= 0.65 * 2400.0
