"""Orders that mix sources by shares: proportional, weighted, interleaved, source-balanced, and stages of these.

Each source runs through its own epochs, so a small one with a large share is repeated; `shares` says how large each
share is, `Mixture` deals them out evenly over any stretch of windows. In a staged order a source that comes again goes
on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ondevice.data.order import Grid, Order, Sequential, Shuffled, Windows, choose_policy
from ondevice.data.permutation import Ints, mix, permute, word, words
from ondevice.errors import UsageError, nearest
from ondevice.run.recipe import StageRecipe

__all__ = ["MIXTURES", "Blend", "Mixture", "Stage", "make_order", "shares"]

_PERIOD = 1 << 16
MIXTURES = ("proportional", "weighted", "interleaved", "source_balanced")  # whose shares follow from the sources alone

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Blend:
    """What decides the shares: for each source (index 0 ... S - 1) its name, weight and group; a source that names no
    group is its own. ``temperature`` 1 counts tokens as they are, more makes sources more equal."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    groups: tuple[str, ...] = ()
    temperature: float = 1.0
    stages: tuple[StageRecipe, ...] = field(default_factory=tuple)

    @property
    def members(self) -> dict[str, list[int]]:
        """Indices of the sources of each group."""
        found: dict[str, list[int]] = {}
        for index, name in enumerate(self.names):
            group = self.groups[index] if self.groups else ""
            found.setdefault(group or name, []).append(index)
        return found


@dataclass(frozen=True, kw_only=True)
class Stage:
    """``windows`` long (None: to the end), with a share for each source, shape [S]; they need not sum to 1."""

    windows: int | None
    shares: tuple[float, ...]


def make_order(policy: str, grid: Grid, blend: Blend, curriculum: Callable[[], Order] | None = None) -> Order:
    """The policy with this name; ``curriculum`` makes the one of that name, which needs the tokens themselves.

    Raises UsageError for an unknown name, or stages that fit no source.
    """

    def mixed() -> Order:
        return Mixture(grid, [Stage(windows=None, shares=tuple(_sizes(policy, grid.windows, blend)))])

    by_name = sorted(range(len(blend.names)), key=lambda index: (blend.names[index].casefold(), blend.names[index]))
    return choose_policy(
        policy,
        {
            "shuffled": lambda: Shuffled(grid),
            "sequential": lambda: Sequential(grid),
            "alphabetical": lambda: Sequential(grid, by_name),
            **dict.fromkeys(MIXTURES, mixed),
            "staged": lambda: Mixture(grid, _stages(blend)),
            **({"curriculum": curriculum} if curriculum else {}),
        },
    )


def shares(policy: str, windows: Ints, blend: Blend) -> Shares:
    """The share of each source under one of `MIXTURES`, shape [S], summing to 1; 0 for a source without windows.

    proportional: weight x windows^(1 / temperature). weighted: weight alone. interleaved: all alike.
    source_balanced: groups alike, and inside a group as proportional.
    """
    sizes = _sizes(policy, windows, blend)
    normal: Shares = sizes / sizes.sum()
    return normal


def _sizes(policy: str, windows: Ints, blend: Blend) -> Shares:
    """The shares before they are made to sum to 1."""
    there = (windows > 0).astype(np.float64)
    if policy == "interleaved":
        return there
    weights = np.array(blend.weights, dtype=np.float64)
    if policy == "weighted":
        return weights * there
    sizes = weights * _tempered(windows, blend.temperature)
    if policy == "source_balanced":
        for members in blend.members.values():
            if (total := sizes[members].sum()) > 0:
                sizes[members] /= total
    return sizes


def _tempered(windows: Ints, temperature: float) -> Shares:
    counts = windows.astype(np.float64)
    return (
        counts if temperature == 1.0 else np.where(windows > 0, np.power(np.maximum(counts, 1.0), 1 / temperature), 0)
    )


def _stages(blend: Blend) -> list[Stage]:
    if not blend.stages:
        raise UsageError("data.order = 'staged' needs [[data.stages]] tables, each with a name and groups.")
    return [
        Stage(windows=stage.windows, shares=_by_index(stage.shares, blend.names, stage.name)) for stage in blend.stages
    ]


def _by_index(named: Mapping[str, float], names: Sequence[str], stage: str) -> tuple[float, ...]:
    for name in named:
        if name not in names:
            raise UsageError(f"data.stages '{stage}': no source '{name}'{nearest(name, names)}.")
    return tuple(float(named.get(name, 0.0)) for name in names)


class Mixture:
    """Every source gets its share of any stretch of windows of a stage; each runs through its own epochs.

    A period of 65,536 places (or fewer, for short stretches) is dealt out once for each stage: the k-th of a source's c
    places wants to be at (k + phase) / c, and places are given in that order. In any prefix a source is off its share
    by about as many windows as there are sources. The last stage goes on for ever.
    """

    def __init__(self, grid: Grid, stages: Sequence[Stage], *, period: int = _PERIOD) -> None:
        self._grid = grid
        self._deals = [_Deal(np.array(stage.shares) * (grid.windows > 0), grid.seed, period) for stage in stages]
        lengths = [0 if stage.windows is None else stage.windows for stage in stages[:-1]]
        self._begins = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self._before = [np.zeros(len(grid.windows), dtype=np.int64)]  # windows of each source before each stage
        for deal, length in zip(self._deals[:-1], lengths, strict=True):
            self._before.append(self._before[-1] + deal.counts(length))

    def windows(self, positions: Ints) -> Windows:
        numbers = np.searchsorted(self._begins, positions, side="right") - 1
        sources, served = np.empty_like(positions), np.empty_like(positions)
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            sources[mine], dealt = self._deals[number].places(positions[mine] - self._begins[number])
            served[mine] = self._before[number][sources[mine]] + dealt
        sizes = self._grid.windows[sources]
        epochs, indices = np.divmod(served, sizes)
        keys = mix(words(sources), mix(words(epochs), word(self._grid.seed)))
        return Windows(sources, self._grid.starts(sources, permute(indices, sizes, keys), epochs), epochs)

    def counts(self, position: int) -> Ints:
        number = int(np.searchsorted(self._begins, position, side="right")) - 1
        counts: Ints = self._before[number] + self._deals[number].counts(position - int(self._begins[number]))
        return counts


class _Deal:
    """The sources of the places of one stage. Its table of a megabyte is made when it is asked for."""

    def __init__(self, wanted: Shares, seed: int, period: int) -> None:
        self._quota = _quotas(wanted, period)
        self._seed, self._period = seed, period

    def places(self, places: Ints) -> tuple[Ints, Ints]:
        """Source at each place, and how many places of that source come before it."""
        table, ranks = _deal(tuple(self._quota.tolist()), self._seed)
        periods, within = np.divmod(places, self._period)
        sources = table[within]
        return sources, periods * self._quota[sources] + ranks[within]

    def counts(self, place: int) -> Ints:
        """Places of each source before one."""
        periods, rest = divmod(place, self._period)
        table, _ = _deal(tuple(self._quota.tolist()), self._seed)
        counts: Ints = periods * self._quota + np.bincount(table[:rest], minlength=len(self._quota))
        return counts


def _quotas(wanted: Shares, total: int) -> Ints:
    """Whole numbers in the proportion of the shares that sum to ``total``; at least 1 where a share is not 0."""
    if not wanted.sum() > 0:
        raise UsageError("the weights of all sources with text are 0, so nothing would be learned; raise one.")
    exact = wanted / wanted.sum() * total
    quotas = np.maximum(np.floor(exact), wanted > 0).astype(np.int64)
    rest = total - int(quotas.sum())
    if rest > 0:
        quotas[np.argsort(quotas - exact, kind="stable")[:rest]] += 1
    while (over := int(quotas.sum()) - total) > 0:
        largest = int(np.argmax(quotas))
        quotas[largest] -= min(over, int(quotas[largest]) // 2)
    return quotas


@lru_cache(maxsize=4)
def _deal(quotas: tuple[int, ...], seed: int) -> tuple[Ints, Ints]:
    """The source at each place of the period, and how many places of that source come before it."""
    counts = np.array(quotas, dtype=np.int64)
    sources = np.repeat(np.arange(len(counts)), counts)
    ranks = np.arange(len(sources)) - (np.cumsum(counts) - counts)[sources]
    phases = mix(words(np.arange(len(counts))), word(seed)).astype(np.float64) / 2.0**64
    order = np.argsort((ranks + phases[sources]) / counts[sources], kind="stable")
    return sources[order], ranks[order]
