"""Rows of packed examples, read from a dataset: what a cursor and an evaluation see in place of windows of text.

A row is several examples side by side, each with positions of its own; whoever computes must keep them apart
(``Decoder.forward(lengths=)``). Knows no model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ondevice.data.dataset import Dataset
from ondevice.data.examples_rows import ExampleRows
from ondevice.data.packing import PACKING_VERSION, Packing, pack

__all__ = ["IGNORE", "Exposure", "PackedRows", "PackedSource", "Rows", "flattened", "packed_source"]

IGNORE = -100  # a label that is not learned, as `ondevice.model.loss` has it
Ints = npt.NDArray[np.int64]
Lengths = tuple[tuple[int, ...], ...]


class Rows(NamedTuple):
    """Inputs and labels ``[B, T]``, and for each row the lengths of its examples; what follows them is padding."""

    x_BT: Ints  # noqa: N815
    y_BT: Ints  # noqa: N815
    lengths_B: Lengths  # noqa: N815


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """What was learned from of each source (shape [S])."""

    examples: Ints
    learned: Ints


class PackedSource:
    """The packed rows of one source and split."""

    def __init__(self, rows: ExampleRows, *, context: int, seed: int, shuffled: bool, too_long: str) -> None:
        self._rows, self.context = rows, context
        cuts = _cuts(rows, context, too_long)
        self.packing: Packing = pack(rows.lengths, cuts, context=context, seed=seed, shuffled=shuffled)

    def __len__(self) -> int:
        return len(self.packing)

    def example(self, index: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Ids of an example and which are learned, cut as the plan says."""
        ids, learned = self._rows.read(index)
        return cut_example(ids, learned, int(self.packing.cuts[index]))

    def read(self, number: int, x_T: Ints, y_T: Ints) -> tuple[int, ...]:
        """Fills a row of inputs and labels; gives the lengths of its examples."""
        lengths: list[int] = []
        at = 0
        for index in self.packing.row(number).tolist():
            ids, learned = self.example(index)
            end = at + len(ids) - 1
            x_T[at:end] = ids[:-1]
            y_T[at:end] = np.where(learned[1:], ids[1:], IGNORE)
            lengths.append(end - at)
            at = end
        return tuple(lengths)

    def rows(self, numbers: list[int]) -> Rows:
        """Several rows."""
        x_BT, y_BT = _blank(len(numbers), self.context)
        return Rows(x_BT, y_BT, tuple(self.read(number, x_BT[i], y_BT[i]) for i, number in enumerate(numbers)))

    @cached_property
    def learned(self) -> Ints:
        """Learned ids of each row, shape [rows]."""
        counts = self._rows.learned_counts()
        for index in np.flatnonzero((self.packing.cuts > 0) & (self.packing.cuts < self._rows.lengths)).tolist():
            counts[index] = int(self.example(index)[1].sum())
        ends = np.concatenate([[0], np.cumsum(counts[self.packing.members])])
        return np.diff(ends[self.packing.bounds])


def packed_source(
    dataset: Dataset, source: str, split: str, *, context: int, seed: int, shuffled: bool
) -> PackedSource:
    """The plan of a source, made once for each dataset that is open."""
    assert dataset.examples is not None
    key = (source, split, context, seed, shuffled)
    if key not in dataset.packed:
        dataset.packed[key] = PackedSource(
            dataset.example_rows(source, split),
            context=context,
            seed=seed,
            shuffled=shuffled,
            too_long=dataset.examples.too_long,
        )
    found = dataset.packed[key]
    assert isinstance(found, PackedSource)
    return found


class PackedRows:
    """The training rows of all sources of a dataset."""

    def __init__(self, dataset: Dataset, *, context: int, seed: int, shuffled: bool) -> None:
        assert dataset.examples is not None
        names = [entry.name for entry in dataset.sources]
        self.context = context
        self.sources = [
            packed_source(dataset, name, "train", context=context, seed=seed, shuffled=shuffled) for name in names
        ]
        self.identity = ["packed", PACKING_VERSION, shuffled, dataset.examples.too_long]

    @cached_property
    def firsts(self) -> Ints:
        """The number of each source's first row among the rows of all."""
        return np.cumsum([0, *self.counts])[:-1]

    @property
    def counts(self) -> list[int]:
        """Rows of each source."""
        return [len(source) for source in self.sources]

    def rows(self, sources: Ints, numbers: Ints) -> Rows:
        """Row ``numbers`` of each of ``sources``. Raises DataError when a chunk they lie in is damaged."""
        x_BT, y_BT = _blank(len(numbers), self.context)
        pairs = zip(sources.tolist(), numbers.tolist(), strict=True)
        return Rows(
            x_BT, y_BT, tuple(self.sources[source].read(row, x_BT[i], y_BT[i]) for i, (source, row) in enumerate(pairs))
        )

    def exposure(self, sources: Ints, numbers: Ints) -> Exposure:
        """Examples and learned ids of rows, for each source."""
        found = Exposure(examples=np.zeros(len(self.sources), np.int64), learned=np.zeros(len(self.sources), np.int64))
        for index, source in enumerate(self.sources):
            own = numbers[sources == index]
            found.examples[index] = np.diff(source.packing.bounds)[own].sum()
            found.learned[index] = source.learned[own].sum()
        return found

    @property
    def truncated(self) -> int:
        return sum(source.packing.truncated for source in self.sources)

    @property
    def dropped(self) -> int:
        return sum(source.packing.dropped for source in self.sources)

    @property
    def filled(self) -> float:
        """Share of the places that hold a token."""
        places = sum(self.counts) * self.context
        return sum(source.packing.filled for source in self.sources) / max(1, places)


def _blank(rows: int, context: int) -> tuple[Ints, Ints]:
    return np.zeros((rows, context), np.int64), np.full((rows, context), IGNORE, np.int64)


def _cuts(rows: ExampleRows, context: int, too_long: str) -> Ints:
    """How many ids of each example are cut so that it fits; all of those that would teach nothing then."""
    cuts = np.maximum(rows.lengths - 1 - context, 0)
    for index in np.flatnonzero(cuts).tolist():
        if too_long == "drop" or not cut_example(*rows.read(index), int(cuts[index]))[1][1:].any():
            cuts[index] = rows.lengths[index]
    return cuts


def cut_example(ids: Ints, learned: npt.NDArray[np.bool_], cut: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Without the first ``cut`` ids. An answer that began before is no longer learned: its question is gone."""
    if not cut:
        return ids, learned
    ids, learned = ids[cut:], learned[cut:].copy()
    begun = len(learned) if learned.all() else int(np.argmin(learned))
    learned[:begun] = False
    return ids, learned


def flattened(
    x_BT: Ints, y_BT: Ints, lengths_B: Lengths, places: Callable[[int, int], int]
) -> tuple[Ints, Ints, tuple[int, ...]]:
    """All examples of some rows in one row ``[1, N]``, and their lengths.

    In place of the padding of each row there is as much at the end as makes them ``places(tokens, x_BT.size)`` places:
    texts of the last id, not learned, none longer than a row.
    """
    used = [sum(lengths) for lengths in lengths_B]
    left, context = places(sum(used), x_BT.size) - sum(used), x_BT.shape[1]
    x_N = np.concatenate([x_BT[row, :count] for row, count in enumerate(used)])
    y_N = np.concatenate([y_BT[row, :count] for row, count in enumerate(used)])
    x_N, y_N = np.pad(x_N, (0, left), mode="edge"), np.pad(y_N, (0, left), constant_values=IGNORE)
    padding = (min(context, left - at) for at in range(0, left, context))
    return x_N[None], y_N[None], (*(length for lengths in lengths_B for length in lengths), *padding)
