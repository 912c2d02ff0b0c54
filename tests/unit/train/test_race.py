"""The race: a plain way stays unless another is clearly faster, and noise does not decide."""

import random

import pytest

from ondevice.train.race import Race, Timing, middle_of, noise_of

TRIALS = 60


def race(speeds, *, noise, seconds=10.0, cost_s=0.1, rng):
    """Who wins where each way has that speed, and the seconds it took."""

    def trial(runner):
        return Timing(rate=speeds[runner] * (1 + rng.uniform(-noise, noise)), seconds=cost_s / speeds[runner])

    found = Race(range(len(speeds)), trial, seconds=seconds)
    for _ in found.trials():
        pass
    return found.winner, found.spent_s


def won(speeds, **how):
    """How often each way won."""
    rng = random.Random(5)
    winners = [race(speeds, rng=rng, **how)[0] for _ in range(TRIALS)]
    return [winners.count(runner) / TRIALS for runner in range(len(speeds))]


@pytest.mark.parametrize("ways", [2, 3, 5])
def test_among_equals_the_plain_one_stays_whatever_the_noise(ways):
    assert won([1.0] * ways, noise=0.3)[0] >= 0.95


@pytest.mark.parametrize("speeds", [[1.0, 1.3], [1.0, 1.3, 0.8], [1.0, 0.6, 1.3, 1.0]])
def test_what_is_a_third_faster_is_found_through_noise(speeds):
    assert won(speeds, noise=0.3)[speeds.index(1.3)] >= 0.9


def test_a_little_faster_is_no_reason_to_change():
    assert won([1.0, 1.05, 0.97], noise=0.05)[0] >= 0.97


def test_a_quiet_machine_is_done_soon():
    rng = random.Random(3)
    winner, spent_s = race([1.0, 2.0, 0.6, 0.9], noise=0.03, rng=rng)
    assert winner == 1 and spent_s < 3.0
    winner, spent_s = race([1.0, 1.0, 0.6, 0.9], noise=0.03, rng=rng)
    assert winner == 0 and spent_s < 3.0


def test_slow_moments_that_hit_a_whole_round_do_not_decide():
    rng, turn = random.Random(3), iter(range(10_000))

    def trial(runner):
        slow = 5.0 if next(turn) // 2 % 3 == 0 else 1.0
        return Timing(rate=rng.uniform(0.95, 1.05) / slow, seconds=0.1)

    found = Race([0, 1], trial, seconds=10.0)
    for _ in found.trials():
        pass
    assert found.winner == 0


def test_time_that_is_over_leaves_the_plain_one():
    rng = random.Random(3)
    winner, spent_s = race([1.0, 2.0, 1.5], noise=0.01, cost_s=3.0, rng=rng)
    assert winner == 0 and spent_s <= 10.0


@pytest.mark.parametrize("cost_s", [0.01, 0.5, 2.0])
def test_it_never_takes_longer_than_it_may(cost_s):
    rng = random.Random(4)
    for _ in range(20):
        assert race([1.0, 0.7, 1.1, 0.9, 1.3], noise=0.3, cost_s=cost_s, rng=rng)[1] <= 10.0


def test_what_is_hopeless_is_timed_once():
    seen = []

    def trial(runner):
        seen.append(runner)
        return Timing(rate=[1.0, 0.3, 1.01][runner], seconds=0.1)

    for _ in Race([0, 1, 2], trial, seconds=10.0).trials():
        pass
    assert seen.count(1) == 1 and seen[:3] == [0, 1, 2]


def test_outliers_move_neither_the_middle_nor_the_noise():
    calm = [0.1, 0.11, 0.09, 0.1, 0.12, 0.08, 0.1]
    assert middle_of([*calm[:-1], 9.0]) == pytest.approx(0.1, abs=0.03)
    assert noise_of([[*calm[:-1], 9.0]]) < 0.1
    assert noise_of([calm]) > noise_of([calm] * 20)  # the fewer the more doubt
