"""The bounds of the governor's bench against the same courses, followed step by step."""

from __future__ import annotations

from math import exp

import pytest

from ondevice.device.simulate_network import ThermalNetwork
from ondevice.device.simulate_profile import load_profile
from tools.bench.governor_bound import Pieces, bound, swing_c


@pytest.mark.parametrize(("duty", "piece_s"), [(0.1, 2.0), (0.5, 10.0), (0.02, 2.0)])
def test_the_swing_is_that_of_a_course_in_small_steps(duty: float, piece_s: float) -> None:
    warming, lag_s, dt_s = 0.15, 14.0, 0.01
    arriving, temp_c, course = duty, 0.0, []
    cycle_s = piece_s / duty
    steps = round(cycle_s / dt_s)
    for index in range(6 * steps):
        load = 1.0 if index % steps < piece_s / dt_s else 0.0
        arriving += (load - arriving) * (1 - exp(-dt_s / lag_s))
        temp_c += warming * (arriving - duty) * dt_s
        course.append(temp_c)
    last = course[-steps:]
    assert swing_c(duty, piece_s, warming, lag_s) == pytest.approx(max(last) - sum(last) / steps, abs=0.01)


def test_less_room_leaves_less_for_error_and_a_part_that_idles_warmer_costs_more() -> None:
    warm, hot = (bound("galaxy-s25plus", ambient_c, limit_c=40.0, piece_s=2.0) for ambient_c in (15.0, 35.0))
    assert warm.room_c - hot.room_c == pytest.approx(20.0, abs=0.01)
    assert hot.left_c < warm.left_c
    assert hot.cpu < warm.cpu < 1.0
    assert bound("galaxy-s25plus", 41.0, limit_c=40.0, piece_s=2.0).duty == 0.0


@pytest.mark.parametrize(("piece_s", "cycle_s"), [(25.0, 400.0), (2.0, 21.0)])
def test_the_peaks_of_pieces_are_those_of_the_network_after_many_of_them(piece_s: float, cycle_s: float) -> None:
    profile = load_profile("galaxy-s25plus")
    network = ThermalNetwork(profile.capacity_j_k, profile.conductance_w_k, profile.to_ambient_w_k)
    big_w, little_w = profile.core_heat_w(profile.threads)
    works, rests = network.drive({"cpu_big": big_w, "cpu_little": little_w}), network.drive({})
    network.settle(works)
    steps_c = [mode * share for mode, share in zip(network.modes, network.shape["battery"], strict=True)]
    network.settle(rests)
    peak_c = 0.0
    for _ in range(int(3000 / cycle_s)):
        peak_c = 0.0
        network.advance(piece_s, works)
        for _ in range(int(cycle_s - piece_s)):
            network.advance(1.0, rests)
            peak_c = max(peak_c, network.temperature("battery"))
    pieces = Pieces(piece_s, steps_c, network.rates)
    assert pieces.peak_c(cycle_s) == pytest.approx(peak_c, abs=0.01)
    assert pieces.shortest_s(peak_c) == pytest.approx(cycle_s, rel=0.01)
    assert pieces.shortest_s(0.01) is None


def test_long_pieces_leave_less_for_error_and_nothing_where_not_one_fits() -> None:
    short, long = (bound("galaxy-s25plus", 35.0, limit_c=40.0, piece_s=piece_s) for piece_s in (2.0, 25.0))
    assert 0.0 < long.left_c < 0.5 * short.left_c
    assert bound("galaxy-s25plus", 38.0, limit_c=40.0, piece_s=25.0).left_c == 0.0
