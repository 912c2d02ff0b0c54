"""The bounds of the governor's bench against the same courses, followed step by step."""

from __future__ import annotations

from math import exp

import pytest

from tools.bench.governor_bound import bound, swing_c


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
