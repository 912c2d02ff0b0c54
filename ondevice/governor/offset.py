"""How far the battery is above a finer scale that does not say what it measures, learned from both.

Android's headroom moves in hundredths of a degree, but where its zero lies differs from phone to phone; the battery's
own reading is true, but often in whole degrees. Each reading bounds the distance between the two, so that the fine
scale can be steered by, with the battery's limit. Where the two do not keep together, the distance is hardly believed,
and less the more often that shows. Knows no limits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

from ondevice.governor.node import between

__all__ = ["Offset", "compared", "unsure_c"]

DRIFT, MOST_DRIFT = 7e-4, 0.1  # degrees per sqrt(s): two scales of one phone do not keep together for ever
BELIEF_S = 3600.0  # how long it takes to forgive
FAR = 3.5  # deviations; a sample further off means that the two went apart
APART_C = 1.0


@dataclass(frozen=True, kw_only=True)
class Offset:
    """``mean_c``: the battery minus the other scale at ``t`` (unix seconds), its variance and how fast that grows."""

    mean_c: float
    var: float
    t: float
    drift: float = DRIFT


def unsure_c(offset: Offset, now: float) -> float:
    """The deviation of the distance by now, in degrees."""
    return sqrt(offset.var + offset.drift**2 * max(0.0, now - offset.t))


def compared(
    offset: Offset | None, sample_c: float, t: float, *, step_c: float, noise_c: float, fine_c: float, fine_var: float
) -> Offset:
    """With a sample of the battery, in steps of ``step_c``, taken when the other scale stood at ``fine_c``."""
    spread = fine_var + noise_c**2
    if offset is None:
        return Offset(mean_c=sample_c - fine_c, var=step_c**2 / 12 + spread, t=t)
    offset = _aged(offset, t)
    surprise_c = abs(sample_c - fine_c - offset.mean_c)
    if surprise_c > step_c / 2 + FAR * sqrt(offset.var + spread):
        offset = replace(offset, var=offset.var + APART_C**2, drift=min(MOST_DRIFT, 3 * offset.drift))
    expected_c, deviation = fine_c + offset.mean_c, sqrt(offset.var + spread)
    mean, variance = between(sample_c - step_c / 2, sample_c + step_c / 2, expected_c, deviation)
    learned = 1 - variance / deviation**2
    if learned < 1e-6:
        return offset
    gain = offset.var * learned / deviation**2
    rest = max(0.0, deviation**2 / learned - offset.var)
    return replace(
        offset,
        mean_c=offset.mean_c + gain * (mean - expected_c) / learned,
        var=(1 - gain) ** 2 * offset.var + gain**2 * rest,
    )


def _aged(offset: Offset, t: float) -> Offset:
    passed_s = max(0.0, t - offset.t)
    drift = DRIFT + (offset.drift - DRIFT) * max(0.0, 1 - passed_s / BELIEF_S)
    return replace(offset, var=offset.var + offset.drift**2 * passed_s, t=max(t, offset.t), drift=drift)
