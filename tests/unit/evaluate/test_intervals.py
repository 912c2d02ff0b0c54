"""Intervals and tests against published examples, hand counts, and scipy where it is installed."""

import math

import pytest

from ondevice.errors import UsageError
from ondevice.evaluate.decision import Rule, decide
from ondevice.evaluate.distributions import beta_share, f_beyond, t_beyond, t_quantile
from ondevice.evaluate.intervals import Interval, Paired, mcnemar_exact, newcombe_paired, paired_mean, wilson


def test_wilson_gives_newcombes_published_interval():
    found = wilson(15, 148)  # Newcombe 1998: 0.0624 to 0.1605
    assert (round(found.low, 4), round(found.high, 4)) == (0.0624, 0.1605)
    assert wilson(0, 10).low == 0.0 and wilson(10, 10).high == 1.0
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    with pytest.raises(ValueError):
        wilson(3, 2)


def test_newcombe_gives_the_published_interval_of_paired_shares():
    found = newcombe_paired(Paired(both=36, first_only=2, second_only=12, neither=0))
    assert (found.estimate, round(found.low, 4), round(found.high, 4)) == (0.2, 0.0569, 0.3404)
    swapped = newcombe_paired(Paired(both=36, first_only=12, second_only=2, neither=0))
    assert (swapped.low, swapped.high) == (pytest.approx(-found.high), pytest.approx(-found.low))


def test_newcombe_without_differing_rows_still_has_a_width():
    same = newcombe_paired(Paired(both=10, first_only=0, second_only=0, neither=0))
    assert same.estimate == 0.0 and same.low < 0 < same.high
    assert newcombe_paired(Paired(both=0, first_only=0, second_only=0, neither=0)).n == 0


def test_mcnemar_counts_by_hand():
    # 5 against 1: P(<= 1 of 6) = 7/64, doubled.
    assert mcnemar_exact(Paired(both=3, first_only=5, second_only=1, neither=9)) == pytest.approx(14 / 64)
    assert mcnemar_exact(Paired(both=3, first_only=0, second_only=0, neither=9)) == 1.0
    assert mcnemar_exact(Paired(both=0, first_only=4, second_only=4, neither=0)) == 1.0


def test_pairs_are_counted_row_by_row():
    table = Paired.of([True, True, False, False], [True, False, True, False])
    assert table == Paired(both=1, first_only=1, second_only=1, neither=1)
    with pytest.raises(ValueError):
        Paired.of([True], [])


def test_paired_mean_by_hand():
    found = paired_mean([1.0, 2.0, 3.0])  # sd 1, t(0.975, 2) = 4.302653
    assert found.estimate == 2.0
    assert found.high - 2.0 == pytest.approx(4.302652729911275 / math.sqrt(3), rel=1e-9)
    assert paired_mean([1.0]).low == -math.inf


def test_distributions_known_by_heart():
    assert beta_share(2, 3, 0.5) == pytest.approx(11 / 16, rel=1e-13)
    assert t_beyond(1.0, 1) == pytest.approx(0.25, rel=1e-13)  # Cauchy
    assert t_quantile(0.975, 10) == pytest.approx(2.22813885198627, rel=1e-12)
    assert f_beyond(4.0, 2, 2) == pytest.approx(0.2, rel=1e-13)
    assert f_beyond(0.0, 3, 9) == 1.0


def test_distributions_equal_scipy():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    for df1, df2 in ((20, 100), (1.3, 6.6), (3, 3), (0.9, 4.4)):
        for f in (0.1, 1.0, 3.3, 50.0, 400.0):
            assert f_beyond(f, df1, df2) == pytest.approx(stats.f.sf(f, df1, df2), rel=1e-12)
    for df in (1, 5, 49, 300):
        for share in (0.01, 0.6, 0.975, 0.9999):
            assert t_quantile(share, df) == pytest.approx(stats.t.ppf(share, df), rel=1e-11)


def sure(estimate, half=0.05):
    return Interval(estimate=estimate, low=estimate - half, high=estimate + half, n=100)


@pytest.mark.parametrize(
    ("primary", "guard", "verdict"),
    [
        (sure(0.2), sure(0.0), "keep"),
        (sure(0.2), sure(-0.02), "keep"),
        (sure(0.03), sure(0.0), "iterate"),  # may be chance
        (sure(0.2), sure(-0.05), "iterate"),  # falls, not surely
        (sure(0.2), sure(-0.09), "discard"),  # wholly below -0.03
        (sure(0.0), sure(0.0), "discard"),
        (sure(-0.2), sure(0.5), "discard"),
        (sure(math.nan), sure(0.0), "discard"),
    ],
)
def test_keep_iterate_discard(primary, guard, verdict):
    rule = Rule(primary="format", guards={"labels": 0.03})
    assert decide(rule, {"format": primary, "labels": guard}).verdict == verdict


def test_a_rule_must_make_sense():
    with pytest.raises(UsageError, match="primary"):
        Rule(primary="a", guards={"a": 0.1})
    with pytest.raises(UsageError, match="tolerance"):
        Rule(primary="a", guards={"b": -0.1})
    with pytest.raises(UsageError, match="labels"):
        decide(Rule(primary="format", guards={"labels": 0.0}), {"format": sure(1.0)})
