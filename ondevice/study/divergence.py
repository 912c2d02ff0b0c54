"""When loss and quality part: flags over checkpoints that were scored on the same prompts, version 1.

Divergence against the best by quality, a: a later b whose loss is below 0.95 of a's and whose quality is below 0.95 of
a's, with the interval of the paired per-prompt difference, adjusted for the number of checkpoints compared
(Bonferroni), not holding 0. Non-monotonic: the best by quality is neither first nor last and beats both by that rule.
The best was itself chosen among all, so the number of comparisons is that of all pairs of checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ondevice.evaluate.intervals import Interval, paired_mean

__all__ = ["DIVERGENCE_VERSION", "Divergence", "Flags", "Scored", "flags"]

DIVERGENCE_VERSION = 1
_SHARE = 0.95


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A checkpoint with its loss (nats; None where unknown) and the quality of each prompt's generation, in order."""

    step: int
    loss: float | None
    quality: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.quality) / len(self.quality)


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """Step ``worse`` has the lower loss and the lower quality; changes are shares of the best's, such as -0.19."""

    best: int
    worse: int
    loss_change: float
    quality_change: float
    difference: Interval

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """``level`` of the adjusted intervals; ``non_monotonic`` is the best step where it beats the first and the last."""

    level: float
    divergences: tuple[Divergence, ...]
    non_monotonic: int | None

    def to_json(self) -> dict[str, Any]:
        return {"v": DIVERGENCE_VERSION, **asdict(self)}


def flags(checkpoints: Sequence[Scored]) -> Flags:
    """Raises ValueError where checkpoints have unlike numbers of prompts, or none."""
    rows = sorted(checkpoints, key=lambda scored: scored.step)
    if any(len(row.quality) != len(rows[0].quality) or not row.quality for row in rows):
        raise ValueError("checkpoints must be scored on the same prompts")
    pairs = len(rows) * (len(rows) - 1) // 2
    level = 1 - 0.05 / max(1, pairs)
    if not rows:
        return Flags(level=level, divergences=(), non_monotonic=None)
    best = max(rows, key=lambda scored: (scored.mean, -scored.step))
    found = [_divergence(best, row, level) for row in rows if row.step > best.step]
    ends = (rows[0], rows[-1])
    beaten = best not in ends and all(_surely_worse(best, row, level) is not None for row in ends)
    return Flags(
        level=level,
        divergences=tuple(each for each in found if each is not None),
        non_monotonic=best.step if beaten else None,
    )


def _surely_worse(best: Scored, other: Scored, level: float) -> Interval | None:
    """The interval of other minus best, where quality falls by the share and surely; else None."""
    if best.mean <= 0 or not other.mean < _SHARE * best.mean:
        return None
    differences = [b - a for a, b in zip(best.quality, other.quality, strict=True)]
    difference = paired_mean(differences, level=level)
    return difference if difference.high < 0 else None


def _divergence(best: Scored, later: Scored, level: float) -> Divergence | None:
    if best.loss is None or later.loss is None or not later.loss < _SHARE * best.loss:
        return None
    difference = _surely_worse(best, later, level)
    if difference is None:
        return None
    return Divergence(
        best=best.step,
        worse=later.step,
        loss_change=later.loss / best.loss - 1,
        quality_change=later.mean / best.mean - 1,
        difference=difference,
    )
