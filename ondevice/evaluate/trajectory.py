"""The shape of a validation curve, version 1: volatility, backslides, drawdown, spikes, stable phase, and advice.

An evaluation k has a token count and a loss; ``epsilon`` and windows are in `Settings` and printed with every report.
Everything here looks only backwards, so it is computed live as well as afterwards. Pure numbers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

__all__ = [
    "TRAJECTORY_VERSION",
    "Advice",
    "Diminishing",
    "Point",
    "Settings",
    "Trajectory",
    "advise",
    "diminishing",
    "spikes",
    "trajectory",
]

TRAJECTORY_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """``volatility_window`` W, ``backslide_epsilon`` (nats), ``stable_evaluations`` m, ``patience`` p evaluations."""

    volatility_window: int = 3
    backslide_epsilon: float = 0.0
    stable_evaluations: int = 3
    stable_slope: float = 0.003
    stable_volatility: float = 0.01
    stable_backslide: float = 0.005
    patience: int = 3

    def to_json(self) -> dict[str, Any]:
        return {"v": TRAJECTORY_VERSION, **asdict(self)}


@dataclass(frozen=True, kw_only=True)
class Point:
    """One evaluation: ``tokens`` trained before it, ``loss`` in nats."""

    step: int
    tokens: int
    loss: float


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """Of every evaluation what is known of it then; ``backslides`` are the sizes, by index."""

    points: tuple[Point, ...]
    volatility: tuple[float | None, ...]
    drawdown: tuple[float, ...]
    backslides: dict[int, float]
    spikes: tuple[int, ...]
    stable: tuple[bool, ...]
    best: int

    @property
    def backslide_rate(self) -> float:
        """Share of the steps from one evaluation to the next."""
        return len(self.backslides) / (len(self.points) - 1) if len(self.points) > 1 else 0.0

    @property
    def longest_backslide(self) -> int:
        """Most backslides in a row."""
        longest = run = 0
        for index in range(len(self.points)):
            run = run + 1 if index in self.backslides else 0
            longest = max(longest, run)
        return longest

    @property
    def stable_since(self) -> int | None:
        """The first evaluation of the stable phase that lasts until now."""
        if not self.stable or not self.stable[-1]:
            return None
        return next(k + 1 for k in range(len(self.stable) - 1, -2, -1) if k < 0 or not self.stable[k])

    def to_json(self) -> dict[str, Any]:
        return {
            "v": TRAJECTORY_VERSION,
            "steps": [point.step for point in self.points],
            "tokens": [point.tokens for point in self.points],
            "loss": [point.loss for point in self.points],
            "volatility": list(self.volatility),
            "drawdown": list(self.drawdown),
            "backslides": {
                "count": len(self.backslides),
                "rate": self.backslide_rate,
                "largest": max(self.backslides.values(), default=0.0),
                "longest_run": self.longest_backslide,
            },
            "spikes": [self.points[k].step for k in self.spikes],
            "stable_since_step": None if self.stable_since is None else self.points[self.stable_since].step,
            "best_step": self.points[self.best].step,
        }


def trajectory(points: Sequence[Point], settings: Settings = Settings()) -> Trajectory:
    """Raises ValueError without points, for losses that are not finite, and for steps that do not rise."""
    losses = [point.loss for point in points]
    if not points or not all(map(math.isfinite, losses)):
        raise ValueError("a trajectory needs finite losses")
    if any(later.step <= earlier.step for earlier, later in pairwise(points)):
        raise ValueError("evaluations must be in order of their steps")
    lowest = np.minimum.accumulate(losses)
    rises = {k: losses[k] - losses[k - 1] for k in range(1, len(losses))}
    volatility = tuple(_volatility(losses[: k + 1], settings.volatility_window) for k in range(len(losses)))
    jumps = spikes(losses)
    return Trajectory(
        points=tuple(points),
        volatility=volatility,
        drawdown=tuple(float(loss - low) for loss, low in zip(losses, lowest, strict=True)),
        backslides={k: rise for k, rise in rises.items() if rise > settings.backslide_epsilon},
        spikes=jumps,
        stable=tuple(_stable(losses[: k + 1], jumps, settings) for k in range(len(losses))),
        best=int(np.argmin(losses)),
    )


def _volatility(losses: Sequence[float], window: int) -> float | None:
    """Sample standard deviation over the trailing window, which must be full."""
    return statistics.stdev(losses[-window:]) if len(losses) >= window else None


def spikes(losses: Sequence[float]) -> tuple[int, ...]:
    """Where the loss rose by more than 4 times the median size of the 5 changes before (at least 3), and 5 %."""
    changes = [abs(later - earlier) for earlier, later in pairwise(losses)]
    found = []
    for k in range(1, len(losses)):
        before = changes[max(0, k - 6) : k - 1]
        usual = 4 * statistics.median(before) if len(before) >= 3 else 0.0
        if len(before) >= 3 and losses[k] - losses[k - 1] > max(usual, 0.05 * losses[k - 1]):
            found.append(k)
    return tuple(found)


def _slope(losses: Sequence[float]) -> float:
    """Nats an evaluation of the fitted line."""
    return float(np.polyfit(np.arange(len(losses)), losses, 1)[0])


def _stable(losses: Sequence[float], jumps: Sequence[int], settings: Settings) -> bool:
    """Whether the last evaluations, m of them and those their slope is fitted over, are a stable phase."""
    last, span = len(losses) - 1, settings.stable_evaluations + 2
    if len(losses) < span:
        return False
    window, now = losses[-span:], abs(losses[-1])
    if abs(_slope(window)) >= settings.stable_slope * now:
        return False
    for k in range(last - settings.stable_evaluations + 1, last + 1):
        volatility = _volatility(losses[: k + 1], settings.volatility_window)
        if volatility is None or volatility >= settings.stable_volatility * now or k in jumps:
            return False
        if losses[k] - losses[k - 1] > settings.stable_backslide * now:
            return False
    return True


@dataclass(frozen=True, kw_only=True)
class Diminishing:
    """What the tokens after the best evaluation brought: ``nats_per_million`` is negative where the loss rose."""

    tokens_since_best: int
    nats_per_million: float | None


def diminishing(found: Trajectory) -> Diminishing:
    """Loss gained a million tokens after the best evaluation; None where it is the last."""
    best, last = found.points[found.best], found.points[-1]
    tokens = last.tokens - best.tokens
    return Diminishing(
        tokens_since_best=tokens,
        nats_per_million=(best.loss - last.loss) / (tokens / 1e6) if tokens else None,
    )


@dataclass(frozen=True, kw_only=True)
class Advice:
    """``what`` to do and a sentence why."""

    what: Literal["go on", "stop", "start the tail"]
    why: str


def advise(points: Sequence[Point], *, in_stable_phase_of_wsd: bool = False, settings: Settings = Settings()) -> Advice:
    """Stop only when the best is older than ``patience`` evaluations and the loss, smoothed by medians of 3, no longer
    falls; while a WSD schedule has not begun its tail, begin it instead."""
    lowest = min(range(len(points)), key=lambda k: (points[k].loss, k))
    last, best = len(points) - 1, points[lowest]
    since = points[-1].tokens - best.tokens
    if last - lowest <= settings.patience:
        return Advice(what="go on", why=f"The best evaluation, step {best.step}, is recent.")
    if _smoothed_slope(points, settings) < 0:
        above = points[-1].loss - best.loss
        why = f"The best was step {best.step}; the loss falls again, and is {above:.4f} above it."
        return Advice(what="go on", why=why)
    cost = f"The best was step {best.step}, {since / 1e6:.2f} M tokens ago, and the loss no longer falls"
    if in_stable_phase_of_wsd:
        return Advice(what="start the tail", why=f"{cost}; a lower learning rate may go on from here.")
    return Advice(what="stop", why=f"{cost}; more of the same will not help.")


def _smoothed_slope(points: Sequence[Point], settings: Settings) -> float:
    """Of the last losses."""
    losses = [point.loss for point in points[-settings.patience - 3 :]]
    smooth = [statistics.median(losses[max(0, k - 1) : k + 2]) for k in range(len(losses))]
    return _slope(smooth[-max(settings.patience + 1, 2) :])
