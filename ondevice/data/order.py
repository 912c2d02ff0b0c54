"""In which order windows are learned: pure functions from a position to a window, O(1) in memory and time.

A window is ``context`` tokens of one source's training stream and the token after them. A policy answers
``windows(positions)`` for any positions in any order, so a run resumes anywhere without replay. Epoch 0 cuts each
stream from its start; every later epoch shifts the cuts by a seeded offset. Policies that mix sources by shares are in
``ondevice.data.mixture``; a new policy is a class with the two methods of `Order` and an entry in `make_order`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ondevice.data.permutation import Ints, mix, permute, word, words
from ondevice.errors import UsageError, nearest

__all__ = ["ORDER_VERSION", "Grid", "Order", "Sequential", "Shuffled", "Windows", "choose_policy"]

ORDER_VERSION = 1
_BLOCK = 1 << 16


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
        keys = mix(sources.astype(np.uint64), mix(epochs.astype(np.uint64), word(self.seed)))
        shift = np.where(epochs > 0, (keys % np.uint64(self.context)).astype(np.int64), 0)
        return np.minimum(indices * self.context + shift, self.reach[sources] - 1 - self.context)


def choose_policy(policy: str, makers: dict[str, Callable[[], Order]]) -> Order:
    """The policy with this name. Raises UsageError for an unknown one."""
    if policy not in makers:
        raise UsageError(
            f"data.order = '{policy}' is not an order{nearest(policy, makers)}: choose {', '.join(makers)}."
        )
    return makers[policy]()


class Sequential:
    """Source after source in the ``line`` they stand in, each from start to end; then again."""

    def __init__(self, grid: Grid, line: Sequence[int] | None = None) -> None:
        self._grid = grid
        self._line = np.array(range(len(grid.windows)) if line is None else line, dtype=np.int64)
        self._ends = np.cumsum(grid.windows[self._line])
        self._begins = self._ends - grid.windows[self._line]

    def windows(self, positions: Ints) -> Windows:
        epochs, places = np.divmod(positions, self._grid.total)
        return self._at(self._place(places, epochs), epochs)

    def _place(self, places: Ints, epochs: Ints) -> Ints:
        """Index among all windows of all sources."""
        return places

    def _at(self, places: Ints, epochs: Ints) -> Windows:
        turns = np.searchsorted(self._ends, places, side="right")
        sources = self._line[turns]
        return Windows(sources, self._grid.starts(sources, places - self._begins[turns], epochs), epochs)

    def counts(self, position: int) -> Ints:
        epochs, rest = divmod(position, self._grid.total)
        counts = self._grid.windows * epochs
        counts[self._line] += np.clip(rest - self._begins, 0, self._grid.windows[self._line])
        return counts


class Shuffled(Sequential):
    """All windows of all sources in one seeded permutation, another one in every epoch."""

    def _place(self, places: Ints, epochs: Ints) -> Ints:
        return permute(places, np.full_like(places, self._grid.total), mix(words(epochs), word(self._grid.seed)))

    def counts(self, position: int) -> Ints:
        """Whole epochs are known; the begun one is counted, which takes time in proportion to it."""
        epochs, rest = divmod(position, self._grid.total)
        counts = self._grid.windows * epochs
        for start in range(0, rest, _BLOCK):
            places = np.arange(start, min(start + _BLOCK, rest)) + epochs * self._grid.total
            counts = counts + np.bincount(self.windows(places).sources, minlength=len(counts))
        return counts
