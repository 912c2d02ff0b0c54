"""Trajectory measures by hand, the shapes of known runs, and what must not raise a flag."""

import math

import pytest

from ondevice.evaluate.trajectory import Point, Settings, advise, diminishing, spikes, trajectory


def curve(*losses, tokens=200_000):
    return trajectory([Point(step=k * 10, tokens=k * tokens, loss=loss) for k, loss in enumerate(losses)])


def test_measures_by_hand():
    found = curve(5.0, 4.0, 4.5, 4.6, 3.0)
    assert found.volatility[:2] == (None, None)
    assert found.volatility[2] == pytest.approx(0.5)  # 5, 4, 4.5
    assert found.drawdown == pytest.approx((0, 0, 0.5, 0.6, 0))
    assert found.backslides == {2: pytest.approx(0.5), 3: pytest.approx(0.1)}
    assert (found.backslide_rate, found.longest_backslide, found.best) == (0.5, 2, 4)
    report = found.to_json()
    assert report["backslides"] == {"count": 2, "rate": 0.5, "largest": pytest.approx(0.5), "longest_run": 2}
    assert report["best_step"] == 40


def test_an_epsilon_forgives_small_rises():
    points = [Point(step=k, tokens=k, loss=loss) for k, loss in enumerate((3.0, 3.001, 3.1))]
    assert list(trajectory(points, Settings(backslide_epsilon=0.01)).backslides) == [2]


def smooth(count=21):
    return [2.8 + 5.5 * math.exp(-k / 4) for k in range(count)]


def test_a_smooth_decay_has_no_spikes():
    assert spikes(smooth()) == ()


@pytest.mark.parametrize(
    ("losses", "where"),
    [
        ([3.1, 3.0, 2.92, 2.86, 2.82, 3.6, 3.1, 2.8], (5,)),
        ([3.0, 2.99, 2.98, 2.97, 2.97 * 1.08, 2.95], (4,)),
        ([3.0, 2.9, 3.9], ()),  # too few changes before to know what is usual
        ([3.0, 2.5, 3.0, 2.5, 3.0], ()),  # as usual
    ],
)
def test_spikes(losses, where):
    assert spikes(losses) == where


def test_spikes_are_computable_live():
    losses = [3.1, 3.0, 2.92, 2.86, 2.82, 3.6, 3.1, 2.8, 2.79, 3.3]
    whole = spikes(losses)
    assert [k for n in range(1, 11) for k in spikes(losses[:n]) if k == n - 1] == list(whole)


def test_a_steady_fall_is_not_stable_and_noise_on_a_flat_line_is():
    falling = curve(*(3.0 * 0.991**k for k in range(12)))
    flat = curve(*(3.0 * (1 + 0.002 * (-1) ** k) for k in range(12)))
    assert falling.stable_since is None and not any(falling.stable)
    assert flat.stable == (False,) * 4 + (True,) * 8
    assert flat.stable_since == 4
    assert curve(*smooth(30)).stable[-1] and not curve(*smooth(12)).stable[-1]


def test_a_spike_ends_the_stable_phase():
    losses = [3.0] * 8 + [3.3] + [3.0]
    assert curve(*losses).stable[7] and not curve(*losses).stable[8]


def over_trained():
    """2.80 at 4 M tokens of 20 M, then up to 3.90."""
    down = [8.3552, 4.9, 3.6, 3.05, 2.7996]
    return down + [2.7996 + (3.9010 - 2.7996) * k / 16 for k in range(1, 17)]


def test_the_over_trained_run_is_told_to_stop():
    found = curve(*over_trained(), tokens=1_000_000)
    assert found.best == 4 and len(found.backslides) == 16
    assert found.drawdown[-1] == pytest.approx(1.1014)
    advice = advise(found.points)
    assert advice.what == "stop" and "step 40, 16.00 M tokens ago" in advice.why
    assert diminishing(found).nats_per_million == pytest.approx(-1.1014 / 16)
    early = curve(*over_trained()[:8], tokens=1_000_000)  # the best is three evaluations old
    assert advise(early.points).what == "go on"


def test_before_the_tail_the_advice_is_the_tail():
    assert advise(curve(*over_trained()).points, in_stable_phase_of_wsd=True).what == "start the tail"


def test_a_run_that_falls_again_goes_on():
    found = curve(3.0, 2.0, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4)
    assert advise(found.points).what == "go on" and "falls again, and is 0.4000 above" in advise(found.points).why
    assert advise(curve(*smooth()).points).what == "go on"


def test_nothing_to_gain_after_the_last():
    assert diminishing(curve(3.0, 2.0)).nats_per_million is None


@pytest.mark.parametrize("losses", [(), (1.0, math.nan)])
def test_nonsense_is_refused(losses):
    with pytest.raises(ValueError):
        curve(*losses)
    with pytest.raises(ValueError):
        trajectory([Point(step=2, tokens=2, loss=1.0), Point(step=1, tokens=1, loss=1.0)])
