"""How sure a score is: Wilson's interval of a share, McNemar's exact test, Newcombe's interval of a paired difference,
and the interval of the mean of paired differences. Numbers in, numbers out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ondevice.evaluate.distributions import normal_quantile, t_quantile

__all__ = [
    "Interval",
    "Paired",
    "effect_size",
    "mcnemar_exact",
    "newcombe_paired",
    "paired_difference",
    "paired_mean",
    "wilson",
]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate from ``n`` observations, and what it may be."""

    estimate: float
    low: float
    high: float
    n: int

    @property
    def above_zero(self) -> bool:
        return self.low > 0.0

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The same rows judged twice: how often both were right, only the first, only the second, neither."""

    both: int
    first_only: int
    second_only: int
    neither: int

    @classmethod
    def of(cls, first: Sequence[bool], second: Sequence[bool]) -> Paired:
        """Raises ValueError where the rows are not the same number."""
        pairs = list(zip(first, second, strict=True))
        return cls(
            both=sum(a and b for a, b in pairs),
            first_only=sum(a and not b for a, b in pairs),
            second_only=sum(b and not a for a, b in pairs),
            neither=sum(not a and not b for a, b in pairs),
        )

    @property
    def n(self) -> int:
        return self.both + self.first_only + self.second_only + self.neither


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval of a share. Of no observations nothing is known: 0 to 1. Raises ValueError."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    if n == 0:
        return Interval(estimate=math.nan, low=0.0, high=1.0, n=0)
    z2 = normal_quantile((1 + level) / 2) ** 2
    p = successes / n
    middle = p + z2 / (2 * n)
    half = math.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n)))
    low = 0.0 if successes == 0 else (middle - half) / (1 + z2 / n)
    high = 1.0 if successes == n else (middle + half) / (1 + z2 / n)
    return Interval(estimate=p, low=low, high=high, n=n)


def mcnemar_exact(table: Paired) -> float:
    """Two-sided p that the first and the second are right equally often: an exact sign test on the rows that differ."""
    fewer, differ = min(table.first_only, table.second_only), table.first_only + table.second_only
    tail = sum(math.comb(differ, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**differ)


def newcombe_paired(table: Paired, *, level: float = 0.95) -> Interval:
    """The second's share minus the first's on the same rows, by Newcombe's method 10 (score intervals, correlation)."""
    n = table.n
    if n == 0:
        return Interval(estimate=math.nan, low=-1.0, high=1.0, n=0)
    second = wilson(table.both + table.second_only, n, level=level)
    first = wilson(table.both + table.first_only, n, level=level)
    phi = _phi(table)
    below = _reach(second.estimate - second.low, first.high - first.estimate, phi)
    above = _reach(second.high - second.estimate, first.estimate - first.low, phi)
    estimate = (table.second_only - table.first_only) / n
    return Interval(estimate=estimate, low=estimate - below, high=estimate + above, n=n)


def _reach(own: float, other: float, phi: float) -> float:
    return math.sqrt(max(0.0, own * own - 2 * phi * own * other + other * other))


def _phi(table: Paired) -> float:
    """The correlation of the two judgements, drawn towards 0 by half a row."""
    a, b, c, d = table.both, table.second_only, table.first_only, table.neither
    spread = (a + b) * (c + d) * (a + c) * (b + d)
    if spread == 0:
        return 0.0
    product = a * d - b * c
    return (max(product - table.n / 2, 0.0) if product > 0 else float(product)) / math.sqrt(spread)


def paired_mean(differences: Sequence[float], *, level: float = 0.95) -> Interval:
    """Student's interval of the mean of paired differences; of fewer than two nothing is known but the mean."""
    values = np.asarray(differences, np.float64)
    n = len(values)
    if n < 2:
        return Interval(estimate=float(values.mean()) if n else math.nan, low=-math.inf, high=math.inf, n=n)
    mean = float(values.mean())
    half = t_quantile((1 + level) / 2, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return Interval(estimate=mean, low=mean - half, high=mean + half, n=n)


def effect_size(differences: Sequence[float]) -> float | None:
    """Hedges' g of paired differences: mean over standard deviation, times the factor that takes its bias away.

    None where they do not differ, and for fewer than three: of two the standard deviation has one degree of freedom,
    with which the estimate has no mean at all (the factor is 0)."""
    n = len(differences)
    deviation = statistics.stdev(differences) if n > 2 else 0.0
    if not deviation:
        return None
    df = n - 1
    factor = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    return factor * statistics.fmean(differences) / deviation


def paired_difference(differences: Sequence[float], *, level: float = 0.95) -> dict[str, Any]:
    """`paired_mean` and `effect_size` as JSON values, and whether it surely is not 0; of one pair the mean alone."""
    found = paired_mean(differences, level=level)
    known = found.n > 1
    return {
        "estimate": found.estimate,
        "low": found.low if known else None,
        "high": found.high if known else None,
        "n": found.n,
        "level": level,
        "effect_size": effect_size(differences),
        "surely": known and len(set(differences)) > 1 and found.excludes_zero,
    }
