"""The bench of governors: no rule that keeps the limit beats its oracle, and what it counts is what happened."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from itertools import product

import pytest

from ondevice.device.readings import Reading
from ondevice.device.simulate import SimulatedPhone
from ondevice.device.simulate_profile import load_profile
from ondevice.governor.order import Order
from tools.bench.governor import LOOK_S, Outcome, Row, compare, run
from tools.bench.governor_oracle import Free, oracle_work_s, spread
from tools.bench.governor_policies import Answer, Boinc, Caps, Duty, Policy
from tools.bench.governor_scenarios import HEAT_SENSORS, Scenario, all_scenarios, quick_scenarios

CAPS = Caps()
WARM = Scenario(name="warm", ambient_c=27, micro_batch_s=10, hours=0.5)


class Seer:
    """Works in bundles on the true temperatures of its phone, as no governor can.

    Of what the chassis is warmer than the battery, a ``coming`` share is taken as already there.
    """

    def __init__(self, below_c: float, coming: float, bundle: int) -> None:
        self._below_c, self._coming, self._bundle, self._left = below_c, coming, bundle, bundle
        self.phone: SimulatedPhone | None = None

    def step(self, reading: Reading, now: float, worked_s: float) -> Answer:
        assert self.phone is not None
        self._left -= worked_s > 0
        if self._left > 0:
            return 0.0
        battery_c, chassis_c = (self.phone.network.temperature(node) for node in ("battery", "chassis"))
        if battery_c + self._coming * (chassis_c - battery_c) > self._below_c:
            return Order(kind="rest")
        self._left = self._bundle
        return 0.0


def seen(policy: Seer, scenario: Scenario) -> Outcome:
    """Runs it with eyes for the phone."""
    seen_phone = scenario.phone()
    seeing = replace(scenario)
    policy.phone = seen_phone
    object.__setattr__(seeing, "phone", lambda: seen_phone)
    return run(policy, seeing, CAPS)


@pytest.mark.parametrize("ambient_c", [15.0, 32.0])
def test_no_plan_that_keeps_the_limit_beats_the_oracle(ambient_c):
    scenario = replace(WARM, ambient_c=ambient_c, hours=0.7)
    oracle_s = oracle_work_s(scenario.phone(), scenario.until_s, 10, {"battery": 40.0})
    best_s = 0.0
    for below_c, coming, bundle in product((39.3, 39.6, 40.0, 40.3), (0.0, 0.06, 0.1), (1, 4)):
        outcome = seen(Seer(below_c, coming, bundle), scenario)
        if outcome.over_c <= 0.02:
            best_s = max(best_s, outcome.work_s)
    for duty in (0.1, 0.2, 0.4, 0.6):
        outcome = run(Duty(duty), scenario, CAPS)
        if outcome.over_c <= 0.02:
            best_s = max(best_s, outcome.work_s)
    assert 0.9 * oracle_s < best_s <= 1.005 * oracle_s


def test_the_oracle_is_near_what_the_duality_of_linear_programs_allows():
    """Without throttling heat is linear in work, so prices on the limit prove a bound that nothing can beat."""
    import numpy as np

    profile = dataclasses.replace(
        load_profile("galaxy-s25plus"), throttle_cpu_c=900.0, throttle_battery_c=900.0, half_power_battery_c=901.0
    )
    phone = SimulatedPhone(profile, ambient_c=25, battery_percent=100)
    until_s, dt_s = 3600.0, 30.0
    steps = round(until_s / dt_s)
    idle_c = phone.truth.battery_c
    pulse, response = phone.copy(), []
    for step in range(steps + 20):
        pulse.advance(dt_s, duty=1.0 if step == 0 else 0.0)
        response.append(pulse.truth.battery_c - idle_c)
    warms = np.array([[response[i - j] if i >= j else 0.0 for j in range(steps)] for i in range(steps + 20)])
    room = np.full(len(warms), 40.0 - idle_c)
    bound_s = dt_s * dual_bound(np, warms, room)
    done_s = spread(phone.copy(), Free.of(phone, until_s, {"battery": 40.0}), until_s)
    assert 0.99 * bound_s < done_s < 1.002 * bound_s


def dual_bound(np, warms, room, rounds: int = 4000) -> float:
    """The least price found by a primal-dual iteration; every price is a valid bound of max sum(u), warms u <= room."""
    size = np.linalg.norm(warms, 2)
    tau, sigma = 30 * 0.95 / size, 0.95 / (30 * size)
    work, price = np.zeros(warms.shape[1]), np.zeros(len(room))
    best = float("inf")
    for step in range(rounds):
        moved = np.clip(work + tau * (1 - warms.T @ price), 0, 1)
        price = np.maximum(0, price + sigma * (warms @ (2 * moved - work) - room))
        work = moved
        if step % 100 == 99:
            best = min(best, price @ room + np.maximum(0, 1 - warms.T @ price).sum())
    return float(best)


@pytest.mark.parametrize("limits_c", [{"battery": 40.0}, {"chassis": 44.0}, {"battery": 40.0, "chassis": 44.0}])
def test_the_oracle_itself_keeps_its_limits_and_comes_close(limits_c):
    phone = SimulatedPhone("galaxy-s25plus", ambient_c=lambda now_s: 22 + now_s / 600, battery_percent=100)
    free, hottest = Free.of(phone, 3600, limits_c), dict.fromkeys(limits_c, 0.0)
    for until_s in range(60, 3601, 60):
        spread(phone, free, until_s)
        hottest = {node: max(phone.network.temperature(node), value) for node, value in hottest.items()}
    over = [hottest[node] - limit_c for node, limit_c in limits_c.items()]
    assert -0.3 < max(over) < 0.01


def test_an_oracle_under_a_weather_above_the_limit_does_nothing():
    assert oracle_work_s(SimulatedPhone("midrange", ambient_c=41), 1800, 2.0, {"battery": 40.0}) == 0.0


def test_the_oracle_leaves_the_phone_alone_and_repeats():
    phone = WARM.phone()
    first = oracle_work_s(phone, 900, 10, {"battery": 40.0})
    assert phone.now_s == 0.0 and oracle_work_s(phone, 900, 10, {"battery": 40.0}) == first > 200


# --- what is counted --------------------------------------------------------------------------------------------------


def test_always_on_overshoots_and_half_duty_does_half_the_work():
    on, half = run(Duty(1.0), WARM, CAPS), run(Duty(0.5), replace(WARM, ambient_c=5), CAPS)
    assert on.over_c > 1 and on.over_s > 600 and not on.clean
    assert half.work_s == pytest.approx(0.5 * 1800, rel=0.02) and half.clean and half.changes_s == [0.0, 10.0]


def test_boincs_rule_goes_on_and_off():
    boinc = run(Boinc(40.0), replace(WARM, hours=1.0), CAPS)
    assert 0 < boinc.over_c < 3 and boinc.changes_per_hour >= 4


class Script:
    """Says one thing after another; the last for ever."""

    def __init__(self, *answers: Answer) -> None:
        self._answers, self.asked = list(answers), []

    def step(self, reading: Reading, now: float, worked_s: float) -> Answer:
        self.asked.append((now - 1.7e9, worked_s))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def done(policy: Policy, **keys) -> Outcome:
    return run(policy, replace(WARM, ambient_c=0.0, hours=0.1, **keys), CAPS)


def test_orders_are_carried_out():
    assert done(Script(Order(duty=0.25))).work_s == pytest.approx(0.25 * 360, abs=10)
    waiting = Script(Order(), Order(kind="rest"), Order(kind="wait", until_t=1.7e9 + 33), Order())
    outcome = done(waiting)
    assert [at for at, _ in waiting.asked[:5]] == pytest.approx(
        [0, 10, 10 + LOOK_S, 10 + 2 * LOOK_S, 20 + 2 * LOOK_S], abs=0.01
    )
    assert [worked for _, worked in waiting.asked[:5]] == pytest.approx([0, 10, 0, 0, 10], abs=0.01)
    assert outcome.changes_s == pytest.approx([0, 10, 10 + LOOK_S, 10 + 2 * LOOK_S], abs=0.01)
    assert done(Script(Order(), Order(kind="leave"))).work_s == pytest.approx(10)
    assert done(Script(Order(kind="rest"))).work_s == 0.0


def test_small_changes_of_duty_are_no_news():
    assert len(done(Script(*(Order(duty=0.5 + 0.05 * (n % 2)) for n in range(9)))).changes_s) == 1


def test_half_of_the_time_is_the_measure_where_nothing_can_be_read():
    blind = Scenario(name="blind", ambient_c=10, micro_batch_s=20, hours=0.3, sensors=frozenset())
    rows = list(compare(blind, ["half", "boinc"], CAPS))
    assert [row.name for row in rows] == ["half"] and rows[0].of_oracle == pytest.approx(1.0, abs=0.05)
    assert str(rows[0]).endswith("capped")


def test_a_share_of_nothing_is_no_figure():
    hot = replace(WARM, ambient_c=39.5, hours=0.1)
    assert [row.of_oracle for row in compare(hot, ["half"], CAPS)] == [None]


def test_a_row_has_the_columns_of_the_header():
    from tools.bench.governor import HEADER

    rows = list(compare(replace(WARM, ambient_c=33), ["boinc", "boinc-kept", "simple-pi"], CAPS))
    assert [row.name for row in rows] == ["boinc", "boinc-kept", "simple-pi"]
    assert rows[0].of_boinc[0] == rows[1].of_boinc[1] == 1.0
    assert rows[1].outcome.over_c <= 0.5 < rows[0].outcome.over_c
    assert isinstance(rows[0], Row) and len(HEADER.split("policy")[0]) == str(rows[0]).index("boinc")


# --- scenarios --------------------------------------------------------------------------------------------------------


def test_every_set_of_sensors_is_tried_and_only_those_speak():
    tried = {scenario.sensors for scenario in all_scenarios()}
    groups = frozenset(HEAT_SENSORS)
    assert tried >= {frozenset(), groups} | {frozenset({one}) for one in groups} | {groups - {one} for one in groups}
    for sensors in tried:
        reading = replace(WARM, sensors=sensors).phone().read()
        for group, names in HEAT_SENSORS.items():
            assert all((getattr(reading, name) is not None) == (group in sensors) for name in names)


def test_the_scenarios_cover_what_is_declared():
    scenarios = all_scenarios()
    assert len({scenario.name for scenario in scenarios}) == len(scenarios)
    assert {scenario.micro_batch_s for scenario in scenarios} >= {0.05, 2.0, 25.0}
    assert {scenario.ambient_c for scenario in scenarios} >= {15, 38}
    assert sum(scenario.hours for scenario in quick_scenarios()) < 8
    lost = next(scenario for scenario in scenarios if scenario.lost_at_s)
    phone = lost.phone()
    phone.advance(lost.lost_at_s[0] + 60, duty=0.0)
    assert phone.read().battery_c is None
    phone.advance(600, duty=0.0)
    assert phone.read().battery_c is not None
