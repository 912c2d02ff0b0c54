"""The estimate of one temperature: what it learns from coarse samples, and how it is steered."""

from __future__ import annotations

import random
from math import exp, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.governor.control import LONG_S, Cycle, duty_for, rest_before
from ondevice.governor.node import Node, advanced, corrected, first_seen
from ondevice.governor.signals import SIGNALS
from ondevice.governor.work import Work, after_piece, burst_s, clock_is_seen, clocked, loads, mean_busy

BATTERY = SIGNALS[0].bodies[0]
STEADY = Cycle(0.0, 0.0)


def learned(*, idle_c: float, warming: float, tau_s: float, step_c: float = 1.0) -> tuple[Node, float]:
    """A node that watched a body for an hour at two duties, and the truth."""
    dice, truth, heat = random.Random(3), idle_c, 0.0
    node = first_seen(idle_c, 0.0, BATTERY, 0.0)
    for k in range(180):
        duty = 0.6 if k % 20 < 8 else 0.2
        for _ in range(20):
            heat += (duty - heat) / BATTERY.lag_s
            truth += (idle_c - truth) / tau_s + warming * heat
        node = advanced(node, BATTERY, [(20.0, duty)])
        node = corrected(node, BATTERY, round((truth + dice.gauss(0, 0.1)) / step_c) * step_c)
    return node, truth


@pytest.mark.parametrize("warming", [0.06, 0.12, 0.2])
def test_it_learns_how_work_warms_from_whole_degrees(warming: float) -> None:
    node, truth = learned(idle_c=24.0, warming=warming, tau_s=250.0)
    assert node.warming == pytest.approx(warming, rel=0.1)
    assert abs(node.temp_c - truth) < 0.35
    assert sqrt(node.tt) < 0.35


def test_finer_sensors_are_noticed_and_trusted() -> None:
    coarse, _ = learned(idle_c=24.0, warming=0.12, tau_s=250.0)
    fine, truth = learned(idle_c=24.0, warming=0.12, tau_s=250.0, step_c=0.1)
    assert (coarse.step_c, fine.step_c) == (1.0, 0.1)
    assert fine.tt < coarse.tt and abs(fine.temp_c - truth) < 0.15


def test_uncertainty_grows_while_nothing_is_read() -> None:
    node, _ = learned(idle_c=24.0, warming=0.12, tau_s=250.0)
    assert advanced(node, BATTERY, [(120.0, 0.4)]).tt > advanced(node, BATTERY, [(20.0, 0.4)]).tt > node.tt


def test_cutting_time_into_pieces_changes_nothing() -> None:
    node, _ = learned(idle_c=24.0, warming=0.12, tau_s=250.0)
    whole, parts = advanced(node, BATTERY, [(30.0, 0.5)]), advanced(node, BATTERY, [(10.0, 0.5)] * 3)
    assert (whole.temp_c, whole.heat, whole.t) == pytest.approx((parts.temp_c, parts.heat, parts.t))


@given(
    temp_c=st.floats(15, 45),
    idle_c=st.floats(10, 45),
    warming=st.floats(0.02, 0.3),
    heat=st.floats(0, 1),
    limit_c=st.floats(30, 50),
    piece_s=st.sampled_from([0.0, 0.05, 2.0, 25.0]),
    rested_s=st.none() | st.floats(0, 300),
    more_c=st.floats(0, 5),
)
def test_a_hotter_body_never_gets_more_duty(
    temp_c: float,
    idle_c: float,
    warming: float,
    heat: float,
    limit_c: float,
    piece_s: float,
    rested_s: float | None,
    more_c: float,
) -> None:
    def duty(hotter_c: float) -> float:
        node = first_seen(temp_c + hotter_c, 0.0, BATTERY, heat)
        node = Node(**{**vars(node), "idle_c": idle_c, "warming": warming, "tt": 0.04})
        if piece_s < LONG_S:
            return duty_for(node, BATTERY, limit_c, Cycle(piece_s, rested_s), duty_now=0.4)
        left_s = rest_before(node, BATTERY, limit_c, Cycle(piece_s, rested_s))
        return 0.0 if left_s is None else 1.0 / (1.0 + left_s)

    assert 0.0 <= duty(more_c) <= duty(0.0) + 1e-6 <= 1.0 + 1e-6


@settings(max_examples=60)
@given(sample=st.integers(22, 42), more=st.integers(1, 8), limit_c=st.floats(28, 42))
def test_a_hotter_sample_never_gives_more_duty(sample: int, more: int, limit_c: float) -> None:
    node, _ = learned_once()

    def duty(sample_c: float) -> float:
        return duty_for(corrected(node, BATTERY, sample_c), BATTERY, limit_c, STEADY, duty_now=0.4)

    assert duty(sample + more) <= duty(sample) + 1e-6


_ONCE: list[tuple[Node, float]] = []


def learned_once() -> tuple[Node, float]:
    if not _ONCE:
        _ONCE.append(learned(idle_c=24.0, warming=0.12, tau_s=250.0))
    return _ONCE[0]


def test_a_piece_that_does_not_fit_is_not_begun() -> None:
    node = Node(**{**vars(learned_once()[0]), "temp_c": 38.0, "idle_c": 38.0, "heat": 0.0})
    assert rest_before(node, BATTERY, 40.0, Cycle(25.0, None)) is None
    assert duty_for(node, BATTERY, 40.0, Cycle(2.0, None), duty_now=0.0) > 0.0


# --- what was worked --------------------------------------------------------------------------------------------------


@given(pieces=st.lists(st.tuples(st.floats(0.01, 40), st.floats(0, 100)), min_size=1, max_size=60))
def test_no_second_of_work_is_lost_or_invented(pieces: list[tuple[float, float]]) -> None:
    work, t, since = Work(), 1000.0, []
    for worked_s, rest_s in pieces:
        t += rest_s + worked_s
        work = after_piece(work, worked_s, t)
        since.append((t, worked_s))
    start = t - 100.0
    told = sum(seconds * load for seconds, load in loads(work, start, t, 0.0))
    truth = sum(max(0.0, end - max(start, end - worked_s)) for end, worked_s in since)
    assert told == pytest.approx(truth, abs=2.5)
    assert sum(seconds for seconds, _ in loads(work, start, t + 7.0, 0.5)) == pytest.approx(107.0)


def test_a_burst_is_the_work_since_the_last_real_rest() -> None:
    work, t = Work(), 1000.0
    for rest_s in (30.0, 0.0, 1.0, 0.0):
        t += rest_s + 2.0
        work = after_piece(work, 2.0, t)
    assert burst_s(work) == pytest.approx(8.0)
    assert burst_s(after_piece(work, 2.0, t + 22.0)) == pytest.approx(2.0)
    assert burst_s(Work()) == 0.0


def test_a_bundle_in_progress_counts_as_half_paid() -> None:
    """At the steady course of a bundled duty, the duty that is asked for hardly depends on the moment of asking."""
    b, tau_s = BATTERY.warming, BATTERY.tau_s
    duties = []
    for burst_s_, rested_s in ((0.0, None), (6.0, 0.0), (12.0, 0.0), (12.0, 10.0), (12.0, 20.0)):
        rest_c = 0.4 * (rested_s or 0.0)
        temp_c = 36.0 + b * (burst_s_ * 0.6 - rest_c)
        node = Node(**{**vars(first_seen(temp_c, 0.0, BATTERY, 0.4)), "idle_c": 36.0 - 0.4 * b * tau_s, "tt": 0.04})
        duties.append(duty_for(node, BATTERY, 37.3, Cycle(2.0, rested_s, rest_s=18.0, burst_s=burst_s_), duty_now=0.4))
    assert max(duties) - min(duties) < 0.1


# --- how much power it took -------------------------------------------------------------------------------------------


def worked_at(freq_share: float | None, *, pieces: int = 60, sees_s: float = 0.0) -> Work:
    """Pieces of 2 s at that clock, each followed by as long a rest, and a look ``sees_s`` after the end of each."""
    work, t = Work(), 1000.0
    for _ in range(pieces):
        t += 4.0
        work = clocked(after_piece(work, 2.0, t), freq_share, t + sees_s)
    return work


def test_slowed_cores_count_as_less_load_and_are_as_busy() -> None:
    work = worked_at(0.8)
    assert work.power_share == pytest.approx(0.64, rel=0.01)
    seen = sum(seconds * load for seconds, load in loads(work, 1140.0, 1240.0, 0.0))
    assert seen == pytest.approx(0.64 * 50.0, rel=0.05) and mean_busy(work, 1240.0) == pytest.approx(0.5, abs=0.01)
    assert sum(s * load for s, load in loads(work, 1240.0, 1250.0, 0.5)) == pytest.approx(0.64 * 5.0, rel=0.01)


@pytest.mark.parametrize("sees_s", [0.5, -3.0])
def test_the_clock_of_a_resting_core_tells_nothing(sees_s: float) -> None:
    work = worked_at(0.3, sees_s=sees_s)
    assert work.power_share == 1.0 and not clock_is_seen(work, 1240.0)


def test_a_clock_that_is_no_longer_told_counts_as_full_power_after_a_while() -> None:
    work = worked_at(0.8)
    assert clock_is_seen(work, 1250.0) and clocked(work, None, 1250.0) == work
    later = clocked(work, None, 1240.0 + 1000.0)
    assert later.power_share == 1.0 and not clock_is_seen(later, 2240.0)


def test_short_pieces_do_not_grow_the_memory() -> None:
    work = Work()
    for k in range(20_000):
        work = after_piece(work, 0.05, 0.1 * k)
    assert len(work.spans) < 400
    assert work.piece_s == pytest.approx(0.05)


def test_a_warming_day_is_learned_as_a_slope() -> None:
    ahead = learned(idle_c=24.0, warming=0.12, tau_s=250.0)[0]
    truth_c, t = ahead.temp_c, ahead.t
    node, idle_c = ahead, ahead.idle_c
    for _ in range(240):
        t, idle_c = t + 15.0, idle_c + 15.0 * 0.0056
        truth_c += (idle_c + 15.0 - truth_c) * (1 - exp(-15.0 / 250.0))
        node = corrected(advanced(node, BATTERY, [(15.0, 0.5)]), BATTERY, round(truth_c, 1))
    assert 0.6 * 0.0056 < node.slope < 1.4 * 0.0056
    still = node
    for _ in range(240):
        still = corrected(advanced(still, BATTERY, [(15.0, 0.5)]), BATTERY, round(truth_c, 1))
    assert abs(still.slope) < 0.2 * 0.0056
