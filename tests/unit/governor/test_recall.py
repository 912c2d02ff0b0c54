"""What a launch takes over from the one before: as warm as it is now, and nothing where nobody knows."""

from __future__ import annotations

import dataclasses
import json

import pytest

from ondevice.governor.debt import Debt
from ondevice.governor.history import History, begin
from ondevice.governor.order import Order
from ondevice.governor.pace import Pace
from ondevice.governor.recall import is_whole, owed, recalled
from tools.bench.governor import Watch, governed
from tools.bench.governor_policies import Caps, Governed
from tools.bench.governor_scenarios import Scenario

CAPS = Caps()


class Told(Governed):
    """The governor, with the duty of its first order to run."""

    first: float | None = None

    def step(self, reading, now, worked_s):
        order = super().step(reading, now, worked_s)
        assert isinstance(order, Order)
        if self.first is None and order.kind == "run":
            self.first = order.duty
        return order


class Phone(Watch):
    """A simulated phone that is worked on by one launch after another, in pieces of 2 s."""

    def __init__(self, **how):
        super().__init__(Scenario(name="", hours=3.0, seed=5, **how), CAPS)

    def live(self, policy, seconds, debt=None):
        debt, worked_s, until_s = debt or Debt(), 0.0, self.phone.now_s + seconds
        while self.phone.now_s < until_s:
            debt = governed(policy, self, debt, policy.step(self.phone.read(), self.phone.t, worked_s))
            worked_s = self.work(2.0)
            debt = debt.after(worked_s)


def two_launches(gap_s, *, remembers, dies_s=0.0, each_s=1500.0, **how):
    """Work, a gap and work again: (duty before, first duty after, overshoot after, work after). The first launch dies
    ``dies_s`` after what it knew was kept."""
    phone, first, second = Phone(**how), Told(CAPS, 4, 2.0), Told(CAPS, 4, 2.0)
    phone.live(first, each_s)
    kept, then = json.loads(json.dumps(first.history.to_json())), phone.phone.t
    phone.live(first, dies_s)
    duty = first.history.order.duty
    phone.rest(gap_s)
    debt, phone.outcome.over_c, done_s, now = None, 0.0, phone.phone.worked_s, phone.phone.t
    if remembers:
        before = History.from_json(kept)
        assert is_whole(before)
        fresh = second.history
        second.history = recalled(fresh, before, now=now, then=then, passed_s=now - then, worked_s=dies_s)
        debt = owed(second.history, now)
    phone.live(second, 900.0, debt)
    return duty, second.first, phone.outcome.over_c, phone.phone.worked_s - done_s


ALL = {"ambient_c": 28}
ONE_BY_ONE = [{**ALL, "sensors": frozenset({name})} for name in ("battery", "android")]


@pytest.mark.parametrize("how", [ALL, *(pytest.param(how, marks=pytest.mark.slow) for how in ONE_BY_ONE)])
def test_a_launch_on_a_hot_phone_goes_on_where_the_last_one_was(how):
    duty, cold, cold_over_c, cold_s = two_launches(20.0, remembers=False, **how)
    _, warm, warm_over_c, warm_s = two_launches(20.0, remembers=True, **how)
    assert abs(warm - duty) < min(0.12, abs(cold - duty))
    assert warm_over_c <= cold_over_c and warm_s > 0.97 * cold_s


GAPS = [
    (gap_s, ambient_c, dies_s) for gap_s in (2, 120, 540, 660, 3600) for ambient_c in (20, 35) for dies_s in (0, 280)
]


@pytest.mark.slow
@pytest.mark.parametrize(("gap_s", "ambient_c", "dies_s"), GAPS)
def test_it_never_overshoots_more_than_a_cold_start(gap_s, ambient_c, dies_s):
    how = {"ambient_c": ambient_c, "dies_s": dies_s}
    _, _, cold_over_c, cold_s = two_launches(gap_s, remembers=False, **how)
    _, _, warm_over_c, warm_s = two_launches(gap_s, remembers=True, **how)
    assert warm_over_c <= max(cold_over_c, 0.01)  # C: a tenth of the sensor's own noise
    assert warm_s > 0.95 * cold_s


@pytest.fixture(scope="module")
def hot():
    """What a launch knew that worked for ten minutes, and when."""
    phone, policy = Phone(ambient_c=30), Told(CAPS, 4, 2.0)
    phone.live(policy, 600.0)
    return policy.history, phone.phone.t


def fresh(**how):
    return begin(handheld=True, battery=True, **{"threads": 4, **how})


def battery(history):
    return history.heat.nodes["battery_c"][0]


def test_after_an_hour_only_how_work_warms_is_known(hot):
    before, then = hot
    found = recalled(fresh(), before, now=then + 3600, then=then, passed_s=3600.0)
    assert found.order is None and not found.work.spans
    assert battery(found).warming == battery(before).warming and battery(found).t == battery(before).t


@pytest.mark.parametrize("jump_s", [-86_400.0, -100.0, 300.0, 86_400.0])
def test_a_clock_that_jumped_changes_nothing_where_the_true_time_is_known(hot, jump_s):
    before, then = hot
    straight = recalled(fresh(), before, now=then + 30, then=then, passed_s=30.0)
    jumped = recalled(fresh(), before, now=then + 30 + jump_s, then=then, passed_s=30.0)
    assert battery(jumped).t - jump_s == pytest.approx(battery(straight).t)
    assert jumped.work.end_t - jump_s == pytest.approx(straight.work.end_t)


def test_where_nobody_knows_the_time_that_passed_it_is_as_after_a_long_one(hot):
    before, then = hot
    stopped = dataclasses.replace(before, heat=dataclasses.replace(before.heat, stopped_t=then - 5))
    found = recalled(fresh(), stopped, now=then - 5000, then=then, passed_s=None)
    assert found.order is None and battery(found).seen_t < then - 5000 - 1800
    assert found.heat.stopped_t == then - 5000, "the back-off is begun anew"


def test_another_number_of_threads_warms_by_as_much_more(hot):
    before, then = hot
    found = recalled(fresh(threads=2), before, now=then + 30, then=then, passed_s=30.0)
    assert battery(found).warming == pytest.approx(battery(before).warming / 2)
    assert found.pace == Pace(), "step times of another fit are no measure"
    same = recalled(fresh(threads=4), before, now=then + 30, then=then, passed_s=30.0)
    assert same.pace.cold_s == before.pace.cold_s is not None


def test_estimates_of_another_make_are_not_whole(hot):
    before, _ = hot
    cut = {name: bodies[:1] if len(bodies) > 1 else bodies for name, bodies in before.heat.nodes.items()}
    other = {**before.heat.nodes, "nose_c": before.heat.nodes["battery_c"]}
    assert is_whole(before) and not is_whole(History())
    assert not any(
        is_whole(dataclasses.replace(before, heat=dataclasses.replace(before.heat, nodes=n))) for n in (cut, other)
    )


def test_the_rest_of_the_launch_before_is_still_owed(hot):
    """Killed at the end of a bundle, it does not begin with another one."""
    before, then = hot
    assert before.order.rest_s > 0.0, "work is bundled here"
    busy = dataclasses.replace(before.work, spans=((then - 40.0, 0.5, 0.5), (then - 20.0, 0.0, 0.0), (then, 1.0, 1.0)))
    at_once = owed(dataclasses.replace(before, work=busy), then + 2.0)
    assert at_once.work_s == pytest.approx(20.0 + busy.piece_s)
    assert at_once.under(Order(duty=0.5)).due_s == pytest.approx(20.0 + busy.piece_s)
    assert owed(dataclasses.replace(before, work=busy), then + 45.0).under(Order(duty=0.5)).due_s < 10.0
    assert owed(dataclasses.replace(before, work=busy), then + 300.0) == Debt()
    assert owed(fresh(), then) == Debt()


def test_where_nobody_saw_its_end_it_ended_in_a_bundle(hot):
    before, then = hot
    now = then + 100.0
    found = recalled(fresh(), before, now=now, then=then, passed_s=100.0, worked_s=90.0)
    duty = before.order.duty
    assert owed(found, now).work_s == pytest.approx(before.order.rest_s * duty / (1 - duty) + found.work.piece_s)
    *_, (_, mean, _), (end_t, busy, _) = found.work.spans
    assert (mean, busy, end_t) == (duty, 1.0, pytest.approx(then + 90.0, abs=5.0))
