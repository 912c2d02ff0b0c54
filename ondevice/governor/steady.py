"""A calm duty: what the controller asks for from second to second, evened out over a minute.

Work warms and rests cool the skin within seconds, so the duty that a moment asks for swings around the right one. Its
mean is the right one, and a person sees one order instead of a hundred. A large step is taken at once. Plain data.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

__all__ = ["Steady", "evened"]

EVENED_S = 60.0
STEP = 0.35  # of duty: more than a swing
FORGOTTEN_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Steady:
    """The evened duty as of ``t`` (unix seconds); None before the first."""

    duty: float | None = None
    t: float = 0.0


def evened(steady: Steady, duty: float, now: float, *, over_s: float = EVENED_S, step: float = STEP) -> Steady:
    """After the controller asked for ``duty`` at ``now``; steps larger than ``step`` are taken at once."""
    passed_s = now - steady.t
    if steady.duty is None or not 0.0 <= passed_s <= FORGOTTEN_S or abs(duty - steady.duty) > step or duty <= 0.0:
        return Steady(duty=duty, t=now)
    return Steady(duty=steady.duty + (1 - exp(-passed_s / over_s)) * (duty - steady.duty), t=now)
