"""Little room under a limit: pieces are steered one by one where one fills much of it, and few orders are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ondevice.device.readings import Reading
from ondevice.device.simulate import Ambient, SimulatedPhone
from ondevice.device.simulate_profile import load_profile
from ondevice.device.simulate_sensors import SensorKind
from ondevice.governor.control import LONG_S
from ondevice.governor.debt import Debt
from ondevice.governor.decide import decide
from ondevice.governor.heat import possible
from ondevice.governor.history import begin, observe
from ondevice.governor.long_piece import is_long
from ondevice.governor.node import first_seen
from ondevice.governor.order import Order, is_change
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


@pytest.mark.parametrize(("room_c", "long"), [(-1.0, True), (0.6, True), (2.8, True), (3.2, False), (12.0, False)])
def test_a_short_piece_is_long_where_it_warms_by_much_of_the_room(room_c: float, long: bool) -> None:
    assert is_long(NODE, 30.0 + room_c, 2.0, BATTERY.much) is long
    assert is_long(NODE, 30.0 + room_c, LONG_S, BATTERY.much), "whatever the room"


def lived(
    *,
    ambient_c: Ambient,
    piece_s: float,
    minutes: float,
    lost: tuple[str, ...] = (),
    profile: str = "galaxy-s25plus",
    wrong: int | None = None,
) -> tuple[float, int, float]:
    """Seconds of work, orders told in the second half, and the warmest battery, of a phone that obeys as a run does.
    ``wrong``: the seed of one whose parameters are wrong by up to 30 %."""
    sensors, body = SensorKind(lost=frozenset(lost)), load_profile(profile)
    body = body if wrong is None else body.without_certainty(0.3, seed=wrong)
    phone = SimulatedPhone(
        body, ambient_c=ambient_c, plugged=True, battery_percent=100.0, seed=wrong or 5, sensors=sensors
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


def test_short_pieces_that_are_rare_keep_the_limit_with_their_peaks() -> None:
    worked_s, _, warmest_c = lived(ambient_c=37.0, piece_s=2.0, minutes=40)
    assert worked_s >= 70.0 and warmest_c <= 39.95


def test_android_alone_keeps_the_first_approach() -> None:
    worked_s, _, warmest_c = lived(ambient_c=28.0, piece_s=2.0, minutes=10, lost=("battery_c", "cpu_c", "skin_c"))
    assert worked_s > 150.0 and warmest_c <= 40.05


def test_android_alone_keeps_the_limit_of_a_phone_that_is_not_as_believed() -> None:
    worked_s, _, warmest_c = lived(
        ambient_c=28.0, piece_s=2.0, minutes=45, wrong=6, lost=("battery_c", "cpu_c", "skin_c")
    )
    assert worked_s > 780.0 and warmest_c <= 40.05


def test_of_a_long_piece_the_mean_is_told() -> None:
    worked_s, changes, warmest_c = lived(profile="midrange", ambient_c=35.0, piece_s=25.0, minutes=20)
    assert worked_s > 450.0 and changes <= 3 and warmest_c <= 40.0


@pytest.mark.parametrize("lost", [(), ("battery_c", "cpu_c", "skin_c")])
def test_a_phone_that_only_cooled_so_far_does_not_think_that_work_hardly_warms_it(lost: tuple[str, ...]) -> None:
    worked_s, _, warmest_c = lived(ambient_c=lambda now_s: 38.0 - now_s / 180.0, piece_s=25.0, minutes=18, lost=lost)
    assert worked_s >= 49.0 and warmest_c <= 40.0


@pytest.mark.parametrize("lost", [(), ("headroom", "cpu_c", "skin_c")])
def test_a_first_long_piece_that_may_be_too_much_is_not_begun(lost: tuple[str, ...]) -> None:
    worked_s, _, warmest_c = lived(ambient_c=36.0, piece_s=25.0, minutes=15, lost=lost)
    assert worked_s == 0.0 and warmest_c <= 38.0, "it idles at 37.4 C and one piece would bring it to 40.4"


@pytest.mark.parametrize(
    ("wrong", "ambient_c", "lost"),
    [(12, 34.5, ()), (5, 33.0, ("headroom", "cpu_c", "skin_c")), (6, 32.0, ("headroom", "cpu_c", "skin_c"))],
)
def test_phones_whose_heat_comes_sooner_or_later_than_believed_keep_the_limit(
    wrong: int, ambient_c: float, lost: tuple[str, ...]
) -> None:
    worked_s, _, warmest_c = lived(ambient_c=ambient_c, piece_s=25.0, minutes=30, wrong=wrong, lost=lost)
    assert worked_s > 120.0 and warmest_c <= 40.0


def cool(now: float) -> Reading:
    return Reading(t=now, battery_c=30.0, plugged=True, battery_percent=80.0)


def test_a_rest_before_the_first_long_piece_counts_as_rest_and_tells_no_bodies_apart() -> None:
    _, history = decide(cool(0.0), LIMITS, begin(handheld=True, battery=True, piece_s=25.0), 0.0)
    waits = replace(history, order=Order(duty=0.95, left_s=60.0, reason="Resting."))
    for now in (20.0, 40.0, 60.0):
        _, after = decide(cool(now), LIMITS, waits, now)
        nodes = after.heat.nodes["battery_c"]
        assert {(node.t, node.heat, node.misfit) for node in nodes} == {(now, 0.0, 0.0)}
    _, after = decide(cool(60.0), LIMITS, observe(waits, 25.0, 45.0), 60.0)
    nodes = after.heat.nodes["battery_c"]
    assert all(node.heat > 0.1 and node.misfit != 0.0 for node in nodes)


def test_of_bodies_that_no_work_has_told_apart_all_are_possible_and_in_the_end_one() -> None:
    nodes = tuple(replace(NODE, misfit_before=misfit) for misfit in (0.2, 0.0, 0.1))
    found = possible(nodes, BATTERY)
    assert [traits for _, traits in found] == [BATTERY.bodies[k] for k in (1, 2, 0)], "the likeliest first"
    assert len(possible(tuple(replace(node, tried=1.0) for node in nodes), BATTERY)) == 1
