"""The battery felt through a part that can be read: in a rest the processor cools towards what it is mounted on.

``y = base + excess * exp(-t / fade_s)`` is fitted to the samples of one rest; the base is an upper estimate of the
battery, since heat flows from the processor to it and slower parts of the excess count as base. Knows no limits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import exp

__all__ = ["AGAIN_S", "REST_S", "Sounding", "felt", "sounded"]

REST_S = 30.0  # a rest must be so long for its end to tell something
SETTLED_S = 10.0  # the silicon itself has cooled by then
TELLS_S, AGAIN_S = 28.0, 10.0
ENOUGH = 5
EXCESS_SURE = 0.002  # samples' worth of belief that there is no excess


@dataclass(frozen=True, kw_only=True)
class Sounding:
    """Sums over the samples of the rest that began at ``began_t``, for a fit by least squares."""

    began_t: float | None = None
    heard_t: float = 0.0
    told_t: float = 0.0
    n: float = 0.0
    e: float = 0.0
    ee: float = 0.0
    y: float = 0.0
    ey: float = 0.0


def sounded(sounding: Sounding, celsius: float, taken_t: float, end_t: float, *, fade_s: float) -> Sounding:
    """With a sample taken at ``taken_t``, where work ended at ``end_t`` (unix seconds). ``fade_s``: of the excess; the
    shorter it is taken to be, the warmer is the base."""
    if sounding.began_t != end_t:
        sounding = Sounding(began_t=end_t, told_t=end_t + TELLS_S - AGAIN_S)
    rested_s = taken_t - end_t
    if rested_s < SETTLED_S or taken_t - sounding.heard_t < 1.0:
        return sounding
    e = exp(-rested_s / fade_s)
    return replace(
        sounding,
        heard_t=taken_t,
        n=sounding.n + 1,
        e=sounding.e + e,
        ee=sounding.ee + e * e,
        y=sounding.y + celsius,
        ey=sounding.ey + e * celsius,
    )


def felt(sounding: Sounding) -> tuple[float | None, Sounding]:
    """The base in degrees Celsius, when there is something new to tell; old samples count half from then on."""
    s = sounding
    if s.n < ENOUGH or s.heard_t - s.told_t < AGAIN_S:
        return None, s
    spread = s.n * s.ee - s.e * s.e + EXCESS_SURE * s.n
    excess = max(0.0, (s.n * s.ey - s.e * s.y) / spread)
    base = (s.y - excess * s.e) / s.n
    return base, replace(s, told_t=s.heard_t, n=s.n / 2, e=s.e / 2, ee=s.ee / 2, y=s.y / 2, ey=s.ey / 2)
