"""The learning-rate range test, version 1 (Smith, arXiv 1506.01186): one short run whose rate climbs from low to high.

The loss is smoothed over a tenth of the steps (exponentially, bias corrected). ``steepest`` is the rate at which it
falls fastest per factor of the rate; ``diverges`` the first at which it is 10 % above its lowest, after the lowest;
``suggested`` is a third of ``diverges``, or the rate of the lowest loss where it never diverges, and never below
``steepest``. Pure.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ondevice.errors import UsageError
from ondevice.run.schema import Config

__all__ = ["LR_RANGE_VERSION", "LrRange", "Ramp", "find_rates", "mean_rate", "parse_ramp", "ramped"]

LR_RANGE_VERSION = 1
_FEWEST = 10


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """Rates from ``low`` to ``high`` over ``steps``."""

    low: float
    high: float
    steps: int


def parse_ramp(text: str, *, steps: int) -> Ramp:
    """``1e-5..1e-1``. Raises UsageError."""
    low, dots, high = text.partition("..")
    try:
        ramp = Ramp(low=float(low), high=float(high), steps=steps)
    except ValueError:
        ramp = Ramp(low=0.0, high=0.0, steps=steps)
    if not dots or not 0 < ramp.low < ramp.high < math.inf:
        raise UsageError(f"--lr-range {text}: write two rates, the lower first, such as 1e-5..1e-1.")
    if steps < _FEWEST:
        raise UsageError(f"--steps {steps}: a range test needs at least {_FEWEST} steps.")
    return ramp


def ramped(config: Config, ramp: Ramp) -> Config:
    """The config of a range test: the same in everything but the length and the rate; nothing is evaluated."""
    train = dataclasses.replace(
        config.train,
        steps=ramp.steps,
        tokens=None,
        epochs=None,
        schedule="ramp",
        lr=ramp.high,
        lr_min=ramp.low,
        warmup_steps=0,
    )
    return dataclasses.replace(
        config,
        train=train,
        eval=dataclasses.replace(config.eval, count=0),
        sample=dataclasses.replace(config.sample, count=0),
    )


@dataclass(frozen=True, kw_only=True)
class LrRange:
    """What one run found; ``lrs`` and ``losses`` (smoothed) are its curve."""

    suggested: float
    steepest: float
    diverges: float | None
    lrs: tuple[float, ...]
    losses: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        return {"v": LR_RANGE_VERSION, **dataclasses.asdict(self)}


def find_rates(points: Sequence[tuple[float, float]]) -> LrRange:
    """``points`` are rate and loss of each step, rising in rate. Raises UsageError for too few."""
    if len(points) < _FEWEST:
        raise UsageError(f"A range test of {len(points)} steps says nothing; give it at least {_FEWEST}.")
    lrs, smooth = [lr for lr, _ in points], _smoothed([loss for _, loss in points])
    lowest = int(np.argmin(smooth))
    beyond = next((k for k in range(lowest + 1, len(smooth)) if smooth[k] > 1.1 * smooth[lowest]), None)
    steepest = lrs[_steepest(lrs, smooth, last=max(lowest, 2))]
    diverges = None if beyond is None else lrs[beyond]
    wanted = lrs[lowest] if diverges is None else diverges / 3
    return LrRange(
        suggested=max(steepest, wanted),
        steepest=steepest,
        diverges=diverges,
        lrs=tuple(lrs),
        losses=tuple(smooth),
    )


def _smoothed(losses: Sequence[float]) -> list[float]:
    keep = 1 - 1 / max(2.0, len(losses) / 10)
    total, weight, found = 0.0, 0.0, []
    for loss in losses:
        total, weight = keep * total + (1 - keep) * loss, keep * weight + (1 - keep)
        found.append(total / weight)
    return found


def _steepest(lrs: Sequence[float], losses: Sequence[float], *, last: int) -> int:
    """Where the slope over the logarithm of the rate is most negative, over a window, up to the lowest loss."""
    half = max(1, len(lrs) // 20)
    logs = np.log(lrs)
    slopes = {}
    for k in range(last + 1):
        start, end = max(0, k - half), min(len(lrs), k + half + 1)
        slopes[k] = float(np.polyfit(logs[start:end], losses[start:end], 1)[0])
    return min(slopes, key=lambda k: (slopes[k], k))


def mean_rate(rates: Sequence[float]) -> float:
    """Of several seeds: rates are compared by their logarithm."""
    return math.exp(statistics.fmean(math.log(rate) for rate in rates))
