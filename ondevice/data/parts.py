"""Parts of a chain: cutting text into parts (`plan_parts`), and the order of windows part by part (`PartsOrder`).

A part reads a slice of each of its sources, mixed evenly and in a seeded order; a part that is longer than its slices
reads them again. Every window of the text is in exactly one part. Plain values; training part by part is the business
of ``ondevice.train``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ondevice.data.mixture import Mixture, Stage
from ondevice.data.order import Grid, Windows
from ondevice.data.permutation import Ints, mix, word, words
from ondevice.data.tokenizer_base import content_hash
from ondevice.errors import DataError, UsageError, nearest
from ondevice.run.recipe import PartRecipe, PartSource

__all__ = ["PartsOrder", "StageText", "plan_parts"]

_SHORTEST_PERIOD, _LONGEST_PERIOD = 256, 1 << 16


@dataclass(frozen=True, kw_only=True)
class StageText:
    """A stage of a chain: its sources by name with their windows, and in how many parts (None: by its length)."""

    name: str
    windows: dict[str, int]
    parts: int | None = None
    replay: float = 0.0


def plan_parts(stages: Sequence[StageText], *, parts: int, batch: int, safety: float) -> tuple[PartRecipe, ...]:
    """The parts of all stages in order. Each is ceil(safety x windows / batch) steps long, the planned steps of
    the formula of that name (version 1). Raises UsageError for fewer parts than stages, DataError for too little text.
    """
    planned: list[PartRecipe] = []
    counts = _counts(stages, parts)
    for number, (stage, count) in enumerate(zip(stages, counts, strict=True)):
        earlier = {name: windows for before in stages[:number] for name, windows in before.windows.items()}
        for index in range(count):
            sources = _slices(stage, index, count)
            windows = sum(source.windows for source in sources)
            if not sum(stage.windows.values()):
                raise DataError(
                    f"Stage '{stage.name}' has no text for a whole window; add text, or leave the stage out."
                )
            if not windows:
                raise DataError(
                    f"Stage '{stage.name}' has {sum(stage.windows.values())} windows, too few for {count} parts; "
                    "take fewer parts or add text."
                )
            steps = math.ceil(safety * windows / batch)
            again = _again(earlier, stage.replay, windows) if stage.replay else ()
            name = f"{len(planned) + 1:03d}"
            planned.append(PartRecipe(name=name, stage=stage.name, windows=steps * batch, sources=(*sources, *again)))
    return tuple(planned)


def _counts(stages: Sequence[StageText], parts: int) -> list[int]:
    """Parts of each stage: as given, the rest in the proportion of their text, at least one each."""
    fixed = sum(stage.parts or 0 for stage in stages)
    free = [stage for stage in stages if stage.parts is None]
    left = parts - fixed
    if left < len(free):
        raise UsageError(f"chain.parts = {parts} is too few for {len(stages)} stages; each has at least one part.")
    if not free and left:
        raise UsageError(f"chain.parts = {parts}, but the parts of the stages sum to {fixed}; make them agree.")
    sizes = np.array([sum(stage.windows.values()) for stage in free], dtype=np.float64)
    exact = sizes / max(1.0, sizes.sum()) * left
    given = np.maximum(1, np.floor(exact)).astype(np.int64)
    while given.sum() > left:
        given[np.argmax(given)] -= 1
    for index in np.argsort(given - exact, kind="stable")[: left - int(given.sum())]:
        given[index] += 1
    of_free = iter(given.tolist())
    return [stage.parts if stage.parts is not None else next(of_free) for stage in stages]


def _slices(stage: StageText, index: int, count: int) -> tuple[PartSource, ...]:
    """The part's share of each source, cut so that all parts together have every window once."""
    found = []
    for name, windows in stage.windows.items():
        first, end = windows * index // count, windows * (index + 1) // count
        if end > first:
            found.append(PartSource(name=name, first=first, windows=end - first, share=float(end - first)))
    return tuple(found)


def _again(earlier: dict[str, int], replay: float, windows: int) -> tuple[PartSource, ...]:
    """All that earlier stages read, so weighted that it makes up the rate ``replay`` of the part."""
    total = sum(earlier.values())
    weight = replay / (1 - replay) * windows / max(1, total)
    return tuple(
        PartSource(name=name, first=0, windows=count, share=weight * count) for name, count in earlier.items() if count
    )


@dataclass(frozen=True)
class _Inside:
    """The order inside a part, over its own sources alone; their indices and first windows in the dataset."""

    order: Mixture
    indices: Ints
    first: Ints


def _period(part: PartRecipe) -> int:
    """As long as the part's text, so that all of it is read once before any is read again; else near to that."""
    length = sum(source.share for source in part.sources)
    if all(source.share == source.windows for source in part.sources) and length <= _LONGEST_PERIOD:
        return int(length)
    return min(_LONGEST_PERIOD, max(_SHORTEST_PERIOD, 1 << math.ceil(length).bit_length()))


class PartsOrder:
    """An order part by part; the last part goes on for ever. ``names`` are the sources by index.

    What a part reads depends on its place, its sources and their texts alone: not on the parts after it, not on where
    it is cut short, and not on other sources of the dataset. ``texts`` (hashes by source) go into `digest`.
    """

    def __init__(
        self, grid: Grid, names: Sequence[str], parts: Sequence[PartRecipe], *, texts: Mapping[str, str] | None = None
    ) -> None:
        self._grid, self._parts, self._texts = grid, tuple(parts), texts or {}
        self._index = {name: index for index, name in enumerate(names)}
        self._check()
        lengths = np.array([part.windows for part in parts], dtype=np.int64)
        self.begins = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        self.total = int(lengths.sum())
        self._order = lru_cache(maxsize=8)(self._order_of)
        self._before: list[Ints] = [np.zeros(len(grid.windows), dtype=np.int64)]
        self._digests = [content_hash(["parts", grid.seed, grid.context])]

    def begun(self, position: int) -> tuple[PartRecipe, ...]:
        """The parts as far as they were read after ``position`` windows; what comes after may still change."""
        count = int(np.searchsorted(self.begins, position, side="left"))
        if not count:
            return ()
        last = self._parts[count - 1]
        read = min(last.windows, position - int(self.begins[count - 1]))
        return (*self._parts[: count - 1], replace(last, windows=read))

    def digest(self, position: int) -> str:
        """Hash of the order and the texts as far as they were read after ``position`` windows."""
        begun = self.begun(position)
        if not begun:
            return self._digests[0]
        while len(self._digests) < len(begun):
            self._digests.append(self._tied(self._digests[-1], self._parts[len(self._digests) - 1]))
        return self._tied(self._digests[len(begun) - 1], begun[-1])

    def _tied(self, before: str, part: PartRecipe) -> str:
        sources = [[vars(source), self._texts.get(source.name, "")] for source in part.sources]
        return content_hash([before, part.windows, sources])

    def windows(self, positions: Ints) -> Windows:
        numbers = np.searchsorted(self.begins, positions, side="right") - 1
        sources, starts, epochs = np.empty_like(positions), np.empty_like(positions), np.empty_like(positions)
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            inside = self._order(number)
            found = inside.order.windows(positions[mine] - self.begins[number])
            sources[mine], epochs[mine] = inside.indices[found.sources], found.epochs
            starts[mine] = found.starts + inside.first[found.sources] * self._grid.context
        return Windows(sources, starts, epochs)

    def counts(self, position: int) -> Ints:
        number = int(np.searchsorted(self.begins, position, side="right")) - 1
        while len(self._before) <= number:
            done = len(self._before) - 1
            self._before.append(self._before[done] + self._counts_in(done, self._parts[done].windows))
        counts: Ints = self._before[number] + self._counts_in(number, position - int(self.begins[number]))
        return counts

    def _counts_in(self, number: int, windows: int) -> Ints:
        counts, sources = np.zeros_like(self._before[0]), self._parts[number].sources
        if len(sources) == 1:  # whatever its order is
            counts[self._index[sources[0].name]] = windows
            return counts
        inside = self._order(number)
        counts[inside.indices] = inside.order.counts(windows)
        return counts

    def _order_of(self, number: int) -> _Inside:
        """The order inside a part. Its period follows from the text of the part, however much of it is trained."""
        part, context = self._parts[number], self._grid.context
        windows = np.array([source.windows for source in part.sources], dtype=np.int64)
        seed = int(mix(words(np.array([number])), word(self._grid.seed))[0])
        stage = Stage(windows=None, shares=tuple(source.share for source in part.sources))
        return _Inside(
            order=Mixture(Grid(windows, windows * context + 1, context, seed), [stage], period=_period(part)),
            indices=np.array([self._index[source.name] for source in part.sources], dtype=np.int64),
            first=np.array([source.first for source in part.sources], dtype=np.int64),
        )

    def _check(self) -> None:
        """Raises UsageError for a part that names no source of the dataset, or more of it than there is."""
        if not self._parts:
            raise UsageError("a chain needs at least one part.")
        for part in self._parts:
            for source in part.sources:
                if source.name not in self._index:
                    near = nearest(source.name, self._index)
                    raise UsageError(f"part {part.name}: no source '{source.name}' in the dataset{near}.")
                there = int(self._grid.windows[self._index[source.name]])
                if source.first < 0 or source.windows < 1 or source.first + source.windows > there:
                    raise UsageError(
                        f"part {part.name}: reads windows {source.first} to {source.first + source.windows} of "
                        f"'{source.name}', which has {there}."
                    )
