"""The distributions behind intervals and tests, in plain Python, so that a phone without scipy has them too.

The incomplete beta function by its continued fraction (Lentz), to about fourteen digits. Knows only numbers.
"""

from __future__ import annotations

import math
from statistics import NormalDist

__all__ = ["beta_share", "f_beyond", "normal_quantile", "t_beyond", "t_quantile"]

_TINY = 1e-300


def normal_quantile(probability: float) -> float:
    """Below which a standard normal variable stays with this probability."""
    return NormalDist().inv_cdf(probability)


def beta_share(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b) for ``a, b > 0`` and ``0 <= x <= 1``."""
    if x <= 0.0 or x >= 1.0:
        return float(x >= 1.0)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1.0 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of I_x(a, b), which converges fast left of the mean."""
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1))
    result = d
    for m in range(1, 10_000):
        for step in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _away(1.0 + step * d)
            c = _away(1.0 + step / c)
            change = c * d
            result *= change
        if abs(change - 1.0) < 1e-16:
            break
    return result


def _away(value: float) -> float:
    """Never zero, which the fraction divides by."""
    return value if abs(value) > _TINY else _TINY


def f_beyond(f: float, df1: float, df2: float) -> float:
    """P(F > f) with ``df1`` and ``df2`` degrees of freedom, which need not be whole."""
    if f <= 0.0:
        return 1.0
    return beta_share(df2 / 2, df1 / 2, df2 / (df2 + df1 * f))


def t_beyond(t: float, df: float) -> float:
    """P(T > t) of Student's t."""
    tail = 0.5 * beta_share(df / 2, 0.5, df / (df + t * t))
    return tail if t >= 0 else 1.0 - tail


def t_quantile(probability: float, df: float) -> float:
    """Below which Student's t stays with this probability, ``0 < probability < 1``; by bisection."""
    if probability < 0.5:
        return -t_quantile(1.0 - probability, df)
    low, high = 0.0, 2.0
    while t_beyond(high, df) > 1.0 - probability:
        low, high = high, high * 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_beyond(middle, df) > 1.0 - probability else (low, middle)
    return (low + high) / 2
