"""Repeated-measures analysis of variance: one within factor (interval), subjects are seeds. Numpy only.

F with its effect size (partial eta squared) and, since evaluations of one run are not equally correlated, the
Greenhouse-Geisser epsilon with the corrected p. Also the spread between seeds of each interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.errors import DataError
from ondevice.evaluate.distributions import f_beyond

__all__ = ["ANOVA_VERSION", "Anova", "Spread", "repeated_measures", "spread"]

ANOVA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Anova:
    """``df1`` and ``df2`` are uncorrected; the corrected ones are these times ``epsilon``."""

    subjects: int
    levels: int
    f: float
    df1: int
    df2: int
    p: float
    partial_eta_squared: float
    epsilon: float
    p_corrected: float

    def to_json(self) -> dict[str, Any]:
        return {"v": ANOVA_VERSION, **asdict(self)}


def repeated_measures(values_SK: Sequence[Sequence[float]] | npt.NDArray[np.float64]) -> Anova:
    """``values_SK[subject, level]``. Raises DataError for fewer than two of either, holes, or no variation at all."""
    table = np.asarray(values_SK, np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise DataError("Repeated measures need at least two seeds and two intervals, every one measured in each.")
    if not np.isfinite(table).all():
        raise DataError("Repeated measures need a finite value of every seed at every interval.")
    S, K = table.shape
    grand = table.mean()
    between_levels = S * float(((table.mean(axis=0) - grand) ** 2).sum())
    left = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + grand
    error = float((left**2).sum())
    if error <= 1e-24 * max(1.0, float((table**2).sum())):
        raise DataError("The seeds do not differ at all beyond a constant; nothing can be said of chance.")
    df1, df2 = K - 1, (K - 1) * (S - 1)
    f = (between_levels / df1) / (error / df2)
    epsilon = greenhouse_geisser(table)
    return Anova(
        subjects=S,
        levels=K,
        f=f,
        df1=df1,
        df2=df2,
        p=f_beyond(f, df1, df2),
        partial_eta_squared=between_levels / (between_levels + error),
        epsilon=epsilon,
        p_corrected=f_beyond(f, df1 * epsilon, df2 * epsilon),
    )


def greenhouse_geisser(table_SK: npt.NDArray[np.float64]) -> float:
    """Between 1 / (K - 1), nothing like spherical, and 1. Of S seeds at most (S - 1) / (K - 1)."""
    K = table_SK.shape[1]
    covariance = np.cov(table_SK, rowvar=False, ddof=1)
    centred = covariance - covariance.mean(axis=0) - covariance.mean(axis=1, keepdims=True) + covariance.mean()
    return float(min(1.0, np.trace(centred) ** 2 / ((K - 1) * (centred**2).sum())))


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Between seeds at one interval; of a single seed only the mean is known."""

    mean: float
    standard_deviation: float | None
    coefficient_of_variation: float | None
    range: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError for no values."""
    if not len(values):
        raise ValueError("no values")
    seeds = np.asarray(values, np.float64)
    deviation = float(seeds.std(ddof=1)) if len(seeds) > 1 else None
    mean = float(seeds.mean())
    return Spread(
        mean=mean,
        standard_deviation=deviation,
        coefficient_of_variation=deviation / mean if deviation is not None and mean else None,
        range=float(np.ptp(seeds)),
    )
