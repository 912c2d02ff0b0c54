"""Step times as a thermometer: the cold baseline, and a duty that follows the slowdown without hunting."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pytest

from ondevice.governor.pace import LEAST, Pace, after_step, allowed, crowding, heat_slowdown, slowdown


def after(steps: list[float]) -> Pace:
    pace = Pace()
    for step_s in steps:
        pace = after_step(pace, step_s)
    return pace


def test_the_baseline_is_the_fastest_stretch() -> None:
    assert slowdown(after([2.0] * 10 + [2.6] * 10)) == pytest.approx(1.3)
    assert slowdown(after([2.6] * 10 + [2.0] * 10)) == pytest.approx(1.0)


def test_one_lucky_step_is_no_baseline() -> None:
    assert slowdown(after([2.0] * 10 + [1.0] + [2.0] * 10)) == pytest.approx(1.0)


def test_short_steps_are_averaged() -> None:
    dice = random.Random(1)
    found = slowdown(after([0.05 * dice.uniform(0.5, 1.5) for _ in range(2000)]))
    assert found is not None and found < 1.12


@pytest.mark.parametrize("odd", [0.0, -1.0, float("nan")])
def test_an_odd_time_is_ignored(odd: float) -> None:
    assert after([odd]) == Pace()


def test_nothing_is_known_at_first() -> None:
    assert slowdown(after([2.0, 2.0])) is None


def test_slow_steps_cost_duty_and_fast_ones_give_it_back() -> None:
    pace, now = after([2.0] * 9), 0.0
    duties = []
    for step_s in [2.0] * 30 + [2.8] * 60 + [2.0] * 200:
        pace, now = after_step(pace, step_s), now + 5.0
        pace = allowed(pace, 1.15, now, trusted=True)
        duties.append(pace.duty)
    assert duties[29] == 1.0
    assert LEAST <= duties[89] < 0.35
    assert duties[-1] == 1.0
    assert min(duties) >= LEAST


def test_slow_steps_of_another_cause_cost_nothing() -> None:
    pace, now = after([2.0] * 9 + [4.0] * 9), 0.0
    for _ in range(50):
        now += 10.0
        pace = allowed(pace, 1.15, now, trusted=False)
    assert pace.duty == 1.0


def test_slowness_that_is_accepted_costs_duty_only_where_no_temperature_is_watched() -> None:
    found = {}
    for blind in (True, False):
        pace, now = after([2.0] * 9 + [2.3] * 9), 0.0
        for _ in range(20):
            now += 10.0
            pace = allowed(pace, 1.25, now, trusted=True, blind=blind)
        found[blind] = pace.duty
    assert found[False] == 1.0 and found[True] <= 0.6


def timed(pieces: list[tuple[float, float | None]], pace: Pace | None = None) -> Pace:
    """After pieces of (seconds on the wall, of processor time)."""
    pace = pace or Pace()
    for step_s, cpu_s in pieces:
        pace = after_step(pace, step_s, cpu_s)
    return pace


@pytest.mark.parametrize("threads", [1, 4])
def test_heat_slows_the_processor_and_a_crowd_only_the_wall(threads: int) -> None:
    cold = [(2.0, 2.0 * threads)] * 9
    hot, crowded = timed([*cold, *[(2.8, 2.8 * threads)] * 9]), timed([*cold, *[(2.8, 2.0 * threads)] * 9])
    both = timed([*cold, *[(4.0, 2.6 * threads)] * 9])
    assert heat_slowdown(hot) == pytest.approx(1.4) and crowding(hot) is None
    assert heat_slowdown(crowded) == pytest.approx(1.0) and crowding(crowded) == pytest.approx(1.4)
    assert heat_slowdown(both) == pytest.approx(1.3) and crowding(both) is None
    assert slowdown(hot) == slowdown(crowded) == pytest.approx(1.4)


def test_threads_that_spin_while_they_wait_make_it_no_hotter_than_the_wall_says() -> None:
    spinning = timed([(2.0, 4.0)] * 9 + [(2.2, 8.0)] * 9)
    assert heat_slowdown(spinning) == pytest.approx(1.1)


def test_a_cold_crowd_is_the_best_known_and_no_more() -> None:
    """It began while others took the cores: the wall's baseline is too slow, the processor's is not."""
    pace = timed([(3.0, 2.0)] * 9)
    assert heat_slowdown(timed([(3.0, 2.8)] * 9, pace)) == pytest.approx(1.0), "never more than the wall says"
    assert heat_slowdown(timed([(2.0, 2.0)] * 9 + [(2.8, 2.8)] * 9, pace)) == pytest.approx(1.4)


def test_where_processor_time_is_unknown_the_wall_counts() -> None:
    for nothing in (None, 0.0, -1.0):
        assert heat_slowdown(timed([(2.0, nothing)] * 9 + [(2.8, nothing)] * 9)) == pytest.approx(1.4)
        assert crowding(timed([(2.0, nothing)] * 9)) is None
    lost = timed([(2.0, 2.0)] * 9 + [(2.8, 2.0)] * 9 + [(2.8, None)])
    assert heat_slowdown(lost) == pytest.approx(1.4)


def test_a_crowd_costs_no_duty_and_heat_does() -> None:
    duties = []
    for cpu_s in (2.0, 3.0):
        pace, now = timed([(2.0, 2.0)] * 9), 0.0
        for _ in range(60):
            pace, now = after_step(pace, 3.0, cpu_s), now + 5.0
            pace = allowed(pace, 1.15, now, trusted=True)
        duties.append(pace.duty)
    crowded, hot = duties
    assert crowded == 1.0 and hot < 0.5


BUSY = "while True: pass"
CROWD = 6  # enough to be felt where some others are on that core from the beginning


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a core to crowd")
def test_programs_that_take_the_core_do_not_look_like_heat() -> None:
    """For real: pieces of arithmetic on one core, first as it is there and then beside busy programs."""
    import torch

    torch.set_num_threads(1)
    cores, pace, a = os.sched_getaffinity(0), Pace(), torch.randn(256, 256)

    def work(seconds: float) -> None:
        nonlocal pace
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            began_s, busy_s = time.monotonic(), time.process_time()
            for _ in range(50):
                a @ a
            pace = after_step(pace, time.monotonic() - began_s, time.process_time() - busy_s)

    os.sched_setaffinity(0, {min(cores)})
    crowd = []
    try:
        work(12.0)
        crowd = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(CROWD)]
        work(15.0)
    finally:
        for program in crowd:
            program.kill()
            program.wait()
        os.sched_setaffinity(0, cores)
    wall, heat = slowdown(pace), heat_slowdown(pace)
    assert wall is not None and wall > 1.5
    assert heat is not None and heat < 1.0 + 0.4 * (wall - 1.0)
