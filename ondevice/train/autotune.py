"""Chooses precision, threads and micro-batch by timing real steps: neither cores nor matrix products tell the story.

Small models are often faster with fewer threads, bf16 that doubles a large product can slow down a small step, and a
smaller micro-batch may stay in the cache. First precision and threads race, then the micro-batch, in 20 seconds at most
(``ondevice.train.race``). What was found is remembered for the device (``ondevice.train.tuned``).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median

import torch

from ondevice.run.recipe import AdapterRecipe, Fit, ModelShape
from ondevice.train.probe import StepTimer
from ondevice.train.race import FEWEST, Race, Timing

__all__ = ["Choice", "candidates", "choose", "micro_batches_to_try", "rows_for", "threads_to_try", "timed"]

TOTAL_S, MIXED_S, SIZES_S, RATE_S = 17.0, 9.0, 5.0, 2.0
TRIAL_S = 0.25  # longer ones are cut to fewer rows, so that there are enough of them
MOST_THREADS = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A way to run the steps, and tokens a second where it was timed. ``micro_batch`` None: the fit's."""

    precision: str
    threads: int
    micro_batch: int | None = None
    tok_s: float | None = None

    def applied_to(self, fit: Fit) -> Fit:
        """The fit with this choice's threads and micro-batch."""
        return dataclasses.replace(fit, threads=self.threads, micro_batch=self.micro_batch or fit.micro_batch)


def candidates(*, precisions: Iterable[str], threads: Iterable[int]) -> list[Choice]:
    """All combinations, the plain one (first precision, first count) first."""
    return [
        Choice(precision=precision, threads=count)
        for precision in dict.fromkeys(precisions)
        for count in dict.fromkeys(threads)
    ]


def threads_to_try(plain: int, cores: int) -> list[int]:
    """The plain count first, then every other up to 4, and every other one beyond."""
    counts = [*range(1, min(cores, 4) + 1), *range(6, min(cores, MOST_THREADS) + 1, 2), min(cores, MOST_THREADS)]
    return list(dict.fromkeys([plain, *sorted(counts, reverse=True)]))


def micro_batches_to_try(fit: Fit, *, batch: int, has_room: Callable[[Fit], bool]) -> list[int]:
    """The fit's own first, then a half and a quarter of it, and twice as many where memory ``has_room`` for that."""
    rows, found = fit.micro_batch, [fit.micro_batch]
    found += [part for part in (rows // 2, rows // 4) if part]
    if 2 * rows <= batch and has_room(dataclasses.replace(fit, micro_batch=2 * rows)):
        found.append(2 * rows)
    return found


def choose(
    shape: ModelShape,
    fit: Fit,
    wanted: Sequence[Choice],
    *,
    batch: int,
    optimizer: str,
    micro_batches: Sequence[int] = (),
    adapter: AdapterRecipe | None = None,
    top_layers: int | None = None,
) -> Choice:
    """The first of ``wanted`` and of ``micro_batches`` (none: the fit's) unless another is clearly faster."""
    sizes = list(micro_batches) or [fit.micro_batch]
    with _threads_put_back():
        timer = StepTimer(shape, fit, optimizer=optimizer, most_rows=max(sizes), adapter=adapter, top_layers=top_layers)
        return _Tuning(timer, fit, batch=batch).choose(wanted, sizes)


def timed(
    shape: ModelShape,
    fit: Fit,
    choice: Choice,
    *,
    batch: int,
    optimizer: str,
    adapter: AdapterRecipe | None = None,
    top_layers: int | None = None,
) -> Choice:
    """A choice that was made before, with the tokens a second of now; takes some two seconds."""
    with _threads_put_back():
        rows = choice.micro_batch or fit.micro_batch
        timer = StepTimer(shape, fit, optimizer=optimizer, most_rows=rows, adapter=adapter, top_layers=top_layers)
        return _Tuning(timer, fit, batch=batch).rated(choice)


@contextmanager
def _threads_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Tuning:
    """The races of one choice, by a deadline."""

    def __init__(self, timer: StepTimer, fit: Fit, *, batch: int) -> None:
        self._timer, self._fit, self._batch = timer, fit, batch
        self._until = time.monotonic() + TOTAL_S

    def choose(self, wanted: Sequence[Choice], sizes: Sequence[int]) -> Choice:
        chosen = wanted[0]
        row_s = self._row_s(chosen)
        if len(wanted) > 1:
            rows = rows_for(row_s, sizes[0])
            chosen = _winner(wanted, lambda each: self._time(each, rows), seconds=min(MIXED_S, self._left_s))
        resized = [dataclasses.replace(chosen, micro_batch=size) for size in sizes]
        chosen = resized[0]
        seconds = min(SIZES_S, self._left_s - RATE_S)
        if len(sizes) > 1 and row_s * sum(sizes) * (FEWEST + 1) <= seconds:
            chosen = _winner(resized, self._time, seconds=seconds)
        return dataclasses.replace(chosen, tok_s=self._rate(chosen, row_s))

    def rated(self, choice: Choice) -> Choice:
        """The choice with its rate alone."""
        return dataclasses.replace(choice, tok_s=self._rate(choice, self._row_s(choice)))

    def _row_s(self, choice: Choice) -> float:
        """Seconds for one sequence; the first time warms up."""
        return min(self._time(choice, 1).seconds for _ in range(2))

    @property
    def _left_s(self) -> float:
        return self._until - time.monotonic()

    def _time(self, choice: Choice, rows: int | None = None) -> Timing:
        fit = choice.applied_to(self._fit)
        return self._timer.time(fit, precision=choice.precision, rows=rows or fit.micro_batch, batch=self._batch)

    def _rate(self, choice: Choice, row_s: float) -> float:
        """Tokens a second of the choice alone, by fewer rows where a whole micro-batch would take too long."""
        rows = rows_for(row_s, choice.micro_batch or self._fit.micro_batch, most_s=max(TRIAL_S, self._left_s / 2))
        timings, until = [self._time(choice, rows)], time.monotonic() + min(RATE_S, self._left_s)
        while time.monotonic() + timings[-1].seconds < until:
            timings.append(self._time(choice, rows))
        return median(timing.rate for timing in timings)


def rows_for(row_s: float, most: int, *, most_s: float | None = None) -> int:
    """``most`` sequences, or so many halvings less that timing them takes at most ``most_s`` (None: a short trial)."""
    rows, most_s = most, TRIAL_S if most_s is None else most_s
    while rows > 1 and rows * row_s > most_s:
        rows //= 2
    return rows


def _winner(wanted: Sequence[Choice], trial: Callable[[Choice], Timing], *, seconds: float) -> Choice:
    race = Race(wanted, trial, seconds=seconds)
    for _ in race.trials():
        pass
    return race.winner
