"""Finds the fastest of several ways to do the same work on a machine that is busy with other things.

All are timed in turn, round by round, and each is compared with the plain one, the first, within the same round: a
noisy moment hits both. A change needs a clear gain, and more of it than chance could give. Knows nothing of threads or
models; whoever goes through `Race.trials` may rest or stop in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from statistics import median
from typing import Generic, TypeVar

__all__ = ["FEWEST", "Race", "Timing"]

CLEARLY = math.log(1.1)  # a change from the plain choice must gain this much
SURE, CERTAIN, OUT = 2.4, 4.0, 2.0  # standard errors: to take one in the end, to stop early, to leave one out
FEWEST, MOST_ROUNDS = 3, 40
SPREAD = 1.05  # of the middle, against the mean's
MAD_TO_DEVIATION = 1.4826
LEAST_NOISE, DOUBT = 0.01, 4.0
HOPELESS = 2.0  # times slower at once, and not tried again

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Work done a second, in any unit, and the seconds that measuring it took."""

    rate: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Logarithm of how many times faster: the middle of paired comparisons, and how far chance may have moved it."""

    middle: float
    error: float

    def surely_above(self, bound: float, sure: float) -> bool:
        return self.middle - sure * self.error > bound

    def surely_below(self, bound: float, sure: float) -> bool:
        return self.middle + sure * self.error < bound


def middle_of(logs: Sequence[float]) -> float:
    """The median of all pairwise means (Hodges and Lehmann): nearly as sharp as the mean, and outliers do not move it.

    >>> middle_of([1.0, 1.2, 9.0])
    1.15
    """
    return median((a + b) / 2 for a, b in combinations_with_replacement(logs, 2))


def noise_of(comparisons: Sequence[Sequence[float]]) -> float:
    """Standard deviation of one comparison about its middle, from all of them together and spared by outliers; the
    fewer they are the more is added."""
    count, rests = len(comparisons[0]), []
    for logs in comparisons:
        middle = middle_of(logs)
        rests += [abs(each - middle) for each in logs]
    doubt = (1 + DOUBT / len(rests)) * math.sqrt(count / max(1, count - 1))
    return max(LEAST_NOISE, MAD_TO_DEVIATION * median(rests)) * doubt


class Race(Generic[T]):
    """``for _ in race.trials(): ...`` times; then ``race.winner``.

    ``trial`` times a runner once. The trials, without what happens between them, take about ``seconds`` at most.
    """

    def __init__(self, runners: Sequence[T], trial: Callable[[T], Timing], *, seconds: float) -> None:
        self.runners = list(runners)
        self._trial, self._left_s = trial, seconds
        self._rates: list[list[float]] = [[] for _ in self.runners]
        self._cost_s = [0.0] * len(self.runners)
        self._out: set[int] = set()
        self.spent_s = 0.0

    def trials(self) -> Iterator[None]:
        """Times once per item until the winner is known or the time is over; the first round only warms up."""
        yield from self._warm_up()
        for _ in range(MOST_ROUNDS):
            for runner in self._still_in():
                if not self._has_time_for(runner):
                    return
                self._rates[runner].append(self._time(runner))
                yield
            self._drop()
            if self._is_decided():
                return

    def _warm_up(self) -> Iterator[None]:
        plain = 0.0
        for runner in range(len(self.runners)):
            if runner and not self._has_time_for(0):
                self._out.add(runner)
                continue
            rate = self._time(runner)
            plain = plain or rate
            if rate * HOPELESS < plain:
                self._out.add(runner)
            yield

    def _time(self, runner: int) -> float:
        timing = self._trial(self.runners[runner])
        self._cost_s[runner] = timing.seconds
        self._left_s -= timing.seconds
        self.spent_s += timing.seconds
        return timing.rate

    def _has_time_for(self, runner: int) -> bool:
        return self._left_s >= self._cost_s[runner]

    def _still_in(self) -> list[int]:
        return [runner for runner in range(len(self.runners)) if runner not in self._out]

    def _gains(self, other: int = 0) -> dict[int, Gain]:
        """How many times faster than another each one still in is, from the rounds that all of them took part in."""
        runners = [runner for runner in self._still_in() if runner != other]
        rounds = min((len(self._rates[runner]) for runner in (other, *runners)), default=0)
        if not runners or rounds < FEWEST:
            return {}
        logs = {runner: self._logs(runner, other, rounds) for runner in runners}
        error = SPREAD * noise_of(list(logs.values())) / math.sqrt(rounds)
        return {runner: Gain(middle=middle_of(each), error=error) for runner, each in logs.items()}

    def _logs(self, runner: int, other: int, rounds: int) -> list[float]:
        pairs = zip(self._rates[runner][:rounds], self._rates[other][:rounds], strict=True)
        return [math.log(max(rate, 1e-9) / max(base, 1e-9)) for rate, base in pairs]

    def _drop(self) -> None:
        """Leaves out who cannot win any more: no clear gain over the plain one, or clearly slower than the best."""
        gains = self._gains()
        self._out |= {runner for runner, gain in gains.items() if gain.surely_below(CLEARLY, OUT)}
        best = max(gains, key=lambda runner: gains[runner].middle, default=0)
        behind = self._gains(best) if best and best not in self._out else {}
        self._out |= {runner for runner, gain in behind.items() if runner and gain.surely_below(0.0, OUT)}

    def _is_decided(self) -> bool:
        if self._still_in() == [0]:
            return True
        gains = list(self._gains().values())
        return len(gains) == 1 and gains[0].middle > CLEARLY and gains[0].surely_above(0.0, CERTAIN)

    @property
    def winner(self) -> T:
        """The plain one unless another is clearly faster; then the fastest of those."""
        gains = self._gains()
        clear = [who for who, gain in gains.items() if gain.middle > CLEARLY and gain.surely_above(0.0, SURE)]
        return self.runners[max(clear, key=lambda runner: gains[runner].middle, default=0)]
