"""The order ``curriculum``: windows by their difficulty, from one end to the other, or from there to mixed.

A pass reads every window once. The place of a window follows from its rank and a seeded draw, in one table that is made
when the order is opened (4 to 8 bytes a window); resuming is a look into it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ondevice.data.difficulty import Difficulty
from ondevice.data.order import Grid, Shuffled
from ondevice.data.permutation import Ints, mix, word, words
from ondevice.run.recipe import CurriculumRecipe

__all__ = ["Curriculum", "ranked"]

_TIES, _DRAWS = 0x7E5, 0xD3A  # salts: two draws a window that have nothing to do with each other


class Curriculum(Shuffled):
    """The first pass by difficulty; later ones shuffled, or by difficulty again (`CurriculumRecipe.afterwards`)."""

    def __init__(self, grid: Grid, difficulty: Difficulty, wish: CurriculumRecipe) -> None:
        super().__init__(grid)
        self._difficulty = difficulty
        self._is_ranked_always = wish.afterwards == "ranked"
        places = ranked(
            difficulty.sums_W,
            descending=wish.direction == "descending",
            mixing=wish.mixing,
            seed=grid.seed,
            first=wish.windows,
        )
        self._table = places.astype(np.int32) if len(places) < 1 << 31 else places

    def _place(self, places: Ints, epochs: Ints) -> Ints:
        first = self._table[places].astype(np.int64)
        if self._is_ranked_always or not epochs.any():
            return first
        return np.where(epochs == 0, first, super()._place(places, epochs))

    def difficulty(self, positions: Ints) -> npt.NDArray[np.float64]:
        """The difficulty of the windows at any positions; in later passes that of about the same text."""
        epochs, places = np.divmod(positions, self._grid.total)
        return self._difficulty.of(self._place(places, epochs))


def ranked(sums_W: Ints, *, descending: bool, mixing: float, seed: int, first: int | None = None) -> Ints:
    """The windows in the order of the first pass; equal ones in a seeded order.

    With ``mixing`` m the window of rank r (0 ... 1) wants to come at r + m x u x (1 - r), with u drawn evenly from
    0 ... 1: m = 0 keeps to the ranks, m = 1 spreads every window over all that comes after its rank. ``first`` windows,
    where that is not all, are taken evenly from all ranks and go over these by themselves, and the rest after them: a
    training that is shorter than a pass goes from one end to the other too.
    """
    count = len(sums_W)
    order = np.argsort(_draws(np.arange(count, dtype=np.int64), seed, _TIES), kind="stable")
    keys = sums_W[order]
    order = order[np.argsort(-keys if descending else keys, kind="stable")]
    if first is None or first >= count:
        return _mixed(order, mixing, seed)
    is_first = np.diff(np.arange(count + 1, dtype=np.int64) * first // count) > 0
    return np.concatenate([_mixed(order[is_first], mixing, seed), _mixed(order[~is_first], mixing, seed)])


def _mixed(order: Ints, mixing: float, seed: int) -> Ints:
    """Windows that stand by rank, in the order in which they want to come."""
    if not mixing:
        return order
    ranks = np.arange(len(order), dtype=np.float64) / len(order)
    draws = (_draws(order, seed, _DRAWS) >> np.uint64(11)).astype(np.float64) / 2.0**53
    mixed: Ints = order[np.argsort(ranks + mixing * draws * (1.0 - ranks), kind="stable")]
    return mixed


def _draws(windows: Ints, seed: int, salt: int) -> npt.NDArray[np.uint64]:
    return mix(words(windows), mix(word(seed), word(salt)))
