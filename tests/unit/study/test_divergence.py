"""Loss and quality that part, and how seldom flags are raised where nothing parts."""

import numpy as np
import pytest

from ondevice.study.divergence import Scored, flags


def scored(step, loss, mean, *, spread=0.05, prompts=50, seed=None):
    noise = np.random.default_rng(step if seed is None else seed).normal(0, spread * mean, prompts)
    return Scored(step=step, loss=loss, quality=tuple(mean + noise - noise.mean()))


def test_less_loss_and_worse_text_is_flagged():
    rows = [scored(1000, 2.6, 45), scored(2000, 2.0, 50), scored(2700, 2.0 * 0.81, 50 * 0.88)]
    found = flags(rows)
    (divergence,) = found.divergences
    assert (divergence.best, divergence.worse) == (2000, 2700)
    assert divergence.loss_change == pytest.approx(-0.19) and divergence.quality_change == pytest.approx(-0.12)
    assert divergence.difference.high < 0 and found.level == pytest.approx(1 - 0.05 / 3)
    assert found.non_monotonic == 2000


@pytest.mark.parametrize(
    "last",
    [
        scored(2700, 1.99, 44),  # the loss hardly fell
        scored(2700, 1.6, 49),  # the quality hardly fell
        scored(2700, 1.6, 44, spread=2.0),  # it may be chance
        scored(2700, None, 44),
    ],
)
def test_what_is_not_sure_is_not_flagged(last):
    assert flags([scored(2000, 2.0, 50), last]).divergences == ()


def test_two_checkpoints_are_never_non_monotonic():
    assert flags([scored(1, 2.0, 50), scored(2, 1.0, 20)]).non_monotonic is None
    assert flags([]).divergences == ()
    assert flags([Scored(step=1, loss=1.0, quality=(0.0,)), Scored(step=2, loss=0.5, quality=(0.0,))]).divergences == ()
    with pytest.raises(ValueError):
        flags([scored(1, 1.0, 1.0), scored(2, 1.0, 1.0, prompts=3)])


def test_flat_quality_seldom_raises_a_flag():
    rng, raised, trials = np.random.default_rng(0), 0, 200
    for _ in range(trials):
        prompts = rng.normal(50, 15, 50)
        rows = [
            Scored(step=k, loss=3.0 * 0.93**k, quality=tuple(prompts + rng.normal(0, 15, 50))) for k in range(1, 21)
        ]
        found = flags(rows)
        raised += bool(found.divergences) or found.non_monotonic is not None
    assert raised / trials <= 0.05
