"""Chooses precision and threads by timing real steps, because neither cores nor matrix products tell the whole story.

Small models are often faster with fewer threads, and bf16 that doubles a large product can slow down a small step.
Each candidate is timed for a few seconds, in turn with the others, and must win clearly to be taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from statistics import median

import torch

from ondevice.run.recipe import AdapterRecipe, Fit, ModelShape
from ondevice.train.probe import step_rate

__all__ = ["Choice", "candidates", "choose", "fastest"]

CLEARLY = 1.1  # a change from the plain choice must gain this much
ROUNDS = 2
SECONDS = 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A way to run the steps, and tokens a second where it was timed."""

    precision: str
    threads: int
    tok_s: float | None = None


def candidates(*, precisions: Iterable[str], threads: Iterable[int]) -> list[Choice]:
    """All combinations, the plain one (first precision, most threads) first."""
    return [
        Choice(precision=precision, threads=count)
        for precision in dict.fromkeys(precisions)
        for count in sorted(set(threads), reverse=True)
    ]


def choose(
    shape: ModelShape,
    fit: Fit,
    wanted: list[Choice],
    *,
    batch: int,
    optimizer: str,
    adapter: AdapterRecipe | None = None,
) -> Choice:
    """The fastest of several choices by timed steps (`fastest`)."""
    rates: dict[Choice, list[float]] = {choice: [] for choice in wanted}
    before = torch.get_num_threads()
    try:
        for _ in range(ROUNDS if len(wanted) > 1 else 1):
            for choice in wanted:
                torch.set_num_threads(choice.threads)
                cut = dataclasses.replace(fit, threads=choice.threads)
                seconds = SECONDS if len(wanted) > 1 else 2 * SECONDS
                rate = step_rate(
                    shape,
                    cut,
                    batch=batch,
                    precision=choice.precision,
                    optimizer=optimizer,
                    adapter=adapter,
                    seconds=seconds,
                )
                rates[choice].append(rate)
    finally:
        torch.set_num_threads(before)
    return fastest([dataclasses.replace(choice, tok_s=median(values)) for choice, values in rates.items()])


def fastest(timed: list[Choice]) -> Choice:
    """The first choice unless another is clearly faster; then the fastest."""
    best = max(timed, key=lambda choice: choice.tok_s or 0.0)
    plain = timed[0]
    return best if (best.tok_s or 0.0) > CLEARLY * (plain.tok_s or 0.0) else plain
