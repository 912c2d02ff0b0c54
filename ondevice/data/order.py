"""In which order windows are learned: pure functions from a position to a window, O(1) in memory and time.

A window is ``context`` tokens of one source's training stream and the token after them. A policy answers
``windows(positions)`` for any positions in any order, so a run resumes anywhere without replay. Epoch 0 cuts each
stream from its start; every later epoch shifts the cuts by a seeded offset. A new policy is a class with the two
methods of `Order` and an entry in `make_order`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ondevice.errors import UsageError, nearest

__all__ = ["ORDER_VERSION", "Grid", "Order", "Windows", "make_order", "permute"]

ORDER_VERSION = 1
_PERIOD = 1 << 16
_ROUNDS = 6
_BLOCK = 1 << 16

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Windows:
    """For each position (all shape [N]): the source's index, the window's first token, the source's epoch."""

    sources: Ints
    starts: Ints
    epochs: Ints


class Order(Protocol):
    """A policy. ``windows`` is vectorised; ``counts`` is how many of the first windows came from each source."""

    def windows(self, positions: Ints) -> Windows: ...
    def counts(self, position: int) -> Ints: ...


@dataclass(frozen=True)
class Grid:
    """How many windows each source has (``windows``, shape [S]) and how they lie in its stream.

    ``reach`` is the number of tokens of each stream that are used (less than the stream under a cap).
    """

    windows: Ints
    reach: Ints
    context: int
    seed: int

    @property
    def total(self) -> int:
        return int(self.windows.sum())

    def starts(self, sources: Ints, indices: Ints, epochs: Ints) -> Ints:
        """First token of window ``indices`` of each source in an epoch.

        Where the shifted grid would leave the stream, its last window is moved back to the stream's end.
        """
        keys = _mix(sources.astype(np.uint64), _mix(epochs.astype(np.uint64), _word(self.seed)))
        shift = np.where(epochs > 0, (keys % np.uint64(self.context)).astype(np.int64), 0)
        return np.minimum(indices * self.context + shift, self.reach[sources] - 1 - self.context)


def make_order(policy: str, grid: Grid, weights: Sequence[float]) -> Order:
    """The policy with this name. ``weights`` has one share a source. Raises UsageError for an unknown name."""
    makers: dict[str, Callable[[], Order]] = {
        "shuffled": lambda: _Shuffled(grid),
        "sequential": lambda: _Sequential(grid),
        "proportional": lambda: _Proportional(grid, weights),
    }
    if policy not in makers:
        raise UsageError(
            f"data.order = '{policy}' is not an order{nearest(policy, makers)}: choose {', '.join(makers)}."
        )
    return makers[policy]()


class _Sequential:
    """Source after source, each from start to end; then again."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._ends = np.cumsum(grid.windows)

    def windows(self, positions: Ints) -> Windows:
        epochs, places = np.divmod(positions, self._grid.total)
        return self._at(self._place(places, epochs), epochs)

    def _place(self, places: Ints, epochs: Ints) -> Ints:
        """Index among all windows of all sources."""
        return places

    def _at(self, places: Ints, epochs: Ints) -> Windows:
        sources = np.searchsorted(self._ends, places, side="right")
        indices = places - (self._ends - self._grid.windows)[sources]
        return Windows(sources, self._grid.starts(sources, indices, epochs), epochs)

    def counts(self, position: int) -> Ints:
        epochs, rest = divmod(position, self._grid.total)
        return self._grid.windows * epochs + np.clip(rest - (self._ends - self._grid.windows), 0, self._grid.windows)


class _Shuffled(_Sequential):
    """All windows of all sources in one seeded permutation, another one in every epoch."""

    def _place(self, places: Ints, epochs: Ints) -> Ints:
        return permute(places, np.full_like(places, self._grid.total), _mix(_words(epochs), _word(self._grid.seed)))

    def counts(self, position: int) -> Ints:
        """Whole epochs are known; the begun one is counted, which takes time in proportion to it."""
        epochs, rest = divmod(position, self._grid.total)
        counts = self._grid.windows * epochs
        for start in range(0, rest, _BLOCK):
            places = np.arange(start, min(start + _BLOCK, rest)) + epochs * self._grid.total
            counts = counts + np.bincount(self.windows(places).sources, minlength=len(counts))
        return counts


class _Proportional:
    """Every source gets its share, weight x tokens, of any stretch of windows; each runs through its own epochs.

    A period of 65,536 places is dealt out once: the k-th of a source's c places wants to be at (k + phase) / c, and
    places are given in that order. In any prefix a source is off its share by about as many windows as there are
    sources.
    """

    def __init__(self, grid: Grid, weights: Sequence[float]) -> None:
        self._grid = grid
        self._quota = _quotas(grid.windows.astype(np.float64) * np.array(weights, dtype=np.float64), _PERIOD)
        self._table, self._rank = _deal(self._quota, grid.seed)

    def windows(self, positions: Ints) -> Windows:
        periods, places = np.divmod(positions, _PERIOD)
        sources = self._table[places]
        served = periods * self._quota[sources] + self._rank[places]
        sizes = self._grid.windows[sources]
        epochs, indices = np.divmod(served, sizes)
        keys = _mix(_words(sources), _mix(_words(epochs), _word(self._grid.seed)))
        return Windows(sources, self._grid.starts(sources, permute(indices, sizes, keys), epochs), epochs)

    def counts(self, position: int) -> Ints:
        periods, rest = divmod(position, _PERIOD)
        return periods * self._quota + np.bincount(self._table[:rest], minlength=len(self._quota))


def _quotas(shares: npt.NDArray[np.float64], total: int) -> Ints:
    """Whole numbers in the proportion of the shares that sum to ``total``; at least 1 where a share is not 0."""
    exact = shares / shares.sum() * total
    quotas = np.maximum(np.floor(exact), shares > 0).astype(np.int64)
    rest = total - int(quotas.sum())
    if rest > 0:
        quotas[np.argsort(quotas - exact, kind="stable")[:rest]] += 1
    while (over := int(quotas.sum()) - total) > 0:
        largest = int(np.argmax(quotas))
        quotas[largest] -= min(over, int(quotas[largest]) // 2)
    return quotas


def _deal(quotas: Ints, seed: int) -> tuple[Ints, Ints]:
    """The source at each place of the period, and how many places of that source come before it."""
    sources = np.repeat(np.arange(len(quotas)), quotas)
    ranks = np.arange(len(sources)) - (np.cumsum(quotas) - quotas)[sources]
    phases = _mix(_words(np.arange(len(quotas))), _word(seed)).astype(np.float64) / 2.0**64
    order = np.argsort((ranks + phases[sources]) / quotas[sources], kind="stable")
    return sources[order], ranks[order]


def permute(indices: Ints, sizes: Ints, keys: Words) -> Ints:
    """A keyed permutation of 0 ... size - 1 for each element, without memory; all arrays have shape [N].

    A Feistel network over a rectangle of about sqrt(size) by sqrt(size) places (Black and Rogaway, "Ciphers with
    arbitrary finite domains", 2002): places beyond the size are walked through until the walk comes back inside.
    """
    wide = np.ceil(np.sqrt(sizes.astype(np.float64))).astype(np.int64)
    high = (sizes + wide - 1) // wide
    out = indices.copy()
    todo = np.arange(len(indices))
    while len(todo):
        out[todo] = _feistel(out[todo], wide[todo], high[todo], keys[todo])
        todo = todo[out[todo] >= sizes[todo]]
    return out


def _feistel(values: Ints, wide: Ints, high: Ints, keys: Words) -> Ints:
    row, column = np.divmod(values, wide)
    for number in range(0, _ROUNDS, 2):
        column = _turn(column, row, wide, keys, number)
        row = _turn(row, column, high, keys, number + 1)
    return row * wide + column


def _turn(value: Ints, other: Ints, size: Ints, keys: Words, number: int) -> Ints:
    """Adds a keyed function of the other half, modulo the size."""
    noise = _mix(_words(other), keys + np.uint64(number))
    return (value + (noise % size.astype(np.uint64)).astype(np.int64)) % size


def _mix(values: Words, keys: Words | np.uint64) -> Words:
    """A 64-bit hash of a value and a key (the finaliser of splitmix64, after the key was multiplied in)."""
    x = (values + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) ^ (keys * np.uint64(0xD1342543DE82EF95))
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _words(values: Ints) -> Words:
    return values.astype(np.uint64)


def _word(seed: int) -> Words:
    """The seed as an array, because numpy warns when a lone 64-bit number overflows and not when an array does."""
    return np.array([seed & (1 << 64) - 1], dtype=np.uint64)
