"""Repeated measures against a worked example, and to 1e-9 against statsmodels where it is installed."""

import warnings

import numpy as np
import pytest

from ondevice.errors import DataError
from ondevice.study.anova import greenhouse_geisser, repeated_measures, spread


def test_a_table_by_hand():
    # Levels' means 2, 4, 6 of 3 subjects; SS levels 24, subjects 6, error 2 (by hand): F = 12 / 0.5.
    found = repeated_measures([[1, 3, 4], [2, 3, 7], [3, 6, 7]])
    assert (found.df1, found.df2) == (2, 4)
    assert found.partial_eta_squared == pytest.approx(24 / (24 + found_error(found)))
    assert found.f == pytest.approx((24 / 2) / (found_error(found) / 4))


def found_error(found):
    """SS total - SS levels - SS subjects of the table above: 38 - 24 - 32/3."""
    return 38 - 24 - 32 / 3


def made_up(seeds=6, levels=21):
    rng = np.random.default_rng(5)
    shape = 2.8 + 5 * np.exp(-np.arange(levels) / 3)
    return shape + rng.normal(0, 0.05, (seeds, levels)).cumsum(axis=1) + rng.normal(0, 0.1, (seeds, 1))


def test_equal_to_statsmodels_to_a_billionth():
    pandas = pytest.importorskip("pandas", reason="statsmodels is not installed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        anova = pytest.importorskip("statsmodels.stats.anova", reason="statsmodels is not installed")
        table = made_up(seeds=8, levels=5)
        rows = [{"s": s, "k": k, "y": y} for s, row in enumerate(table) for k, y in enumerate(row)]
        oracle = anova.AnovaRM(pandas.DataFrame(rows), "y", "s", within=["k"]).fit().anova_table.iloc[0]
    found = repeated_measures(table)
    assert found.f == pytest.approx(oracle["F Value"], rel=1e-9)
    assert (found.df1, found.df2) == (oracle["Num DF"], oracle["Den DF"])
    assert found.p == pytest.approx(oracle["Pr > F"], rel=1e-9)


def test_epsilon_equals_that_of_orthonormal_contrasts_to_a_billionth():
    table = made_up(seeds=8, levels=5)
    contrasts = np.linalg.qr(np.column_stack([np.ones(5), np.eye(5)[:, :4]]))[0][:, 1:]
    eigenvalues = np.linalg.eigvalsh(contrasts.T @ np.cov(table, rowvar=False) @ contrasts)
    expected = eigenvalues.sum() ** 2 / (4 * (eigenvalues**2).sum())
    assert greenhouse_geisser(table) == pytest.approx(expected, rel=1e-9)
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    found = repeated_measures(table)
    corrected = stats.f.sf(found.f, found.df1 * expected, found.df2 * expected)
    assert found.p_corrected == pytest.approx(corrected, rel=1e-9)


def test_six_seeds_of_21_intervals_have_a_small_epsilon():
    found = repeated_measures(made_up())
    assert (found.df1, found.df2) == (20, 100)
    assert 1 / 20 <= found.epsilon <= 0.25
    assert found.p <= found.p_corrected < 0.01


def test_no_effect_is_seldom_found():
    rng = np.random.default_rng(3)
    hits = sum(repeated_measures(rng.normal(size=(6, 8))).p_corrected < 0.05 for _ in range(200))
    assert hits / 200 <= 0.08


def test_two_levels_are_a_paired_t_test():
    table = made_up(seeds=7, levels=2)
    differences = table[:, 1] - table[:, 0]
    t = differences.mean() / (differences.std(ddof=1) / np.sqrt(7))
    found = repeated_measures(table)
    assert found.f == pytest.approx(t * t) and found.epsilon == pytest.approx(1.0)
    assert found.p == pytest.approx(found.p_corrected)


@pytest.mark.parametrize("table", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, np.nan], [2.0, 3.0]], [[1.0, 2.0], [3.0, 4.0]]])
def test_what_cannot_be_computed_says_so(table):
    with pytest.raises(DataError):
        repeated_measures(table)


def test_spread_between_seeds():
    found = spread([2.0, 4.0])
    assert (found.mean, found.range) == (3.0, 2.0)
    assert found.standard_deviation == pytest.approx(2**0.5)
    assert found.coefficient_of_variation == pytest.approx(2**0.5 / 3)
    assert spread([2.0]).standard_deviation is None
