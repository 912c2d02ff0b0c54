"""How difficult each window of a dataset is: the mean length or score of the items that its tokens belong to.

Items are what ends with end-of-text in the token stream: documents, their pieces, or items of `ondevice.data.items`.
All sums are of whole numbers, so that every machine ranks alike. Reads datasets; ordering is the business of
`ondevice.data.curriculum`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ondevice.data.dataset import Dataset
from ondevice.data.order import Grid
from ondevice.data.permutation import Ints
from ondevice.errors import DataError, UsageError
from ondevice.run.recipe import CurriculumRecipe

__all__ = ["Difficulty", "window_difficulty"]

_STEPS = 1 << 30  # into which the range of the scores is divided


@dataclass(frozen=True)
class Difficulty:
    """``sums_W`` ranks the windows of a grid, those of the first source first; `of` tells it in people's units."""

    sums_W: Ints  # noqa: N815
    context: int
    low: float = 0.0
    step: float = 1.0

    def of(self, windows: Ints) -> npt.NDArray[np.float64]:
        """The mean length in tokens, or the mean score, of some windows."""
        means: npt.NDArray[np.float64] = self.low + self.sums_W[windows] / self.context * self.step
        return means


def window_difficulty(dataset: Dataset, grid: Grid, curriculum: CurriculumRecipe) -> Difficulty:
    """The difficulty of every window of epoch 0. Raises UsageError for a source without scores, DataError for scores
    that do not fit the tokens."""
    names = [entry.name for entry in dataset.sources]
    used = [name for name, windows in zip(names, grid.windows.tolist(), strict=True) if windows]
    ends = {name: _item_ends(dataset, name) for name in used}
    if curriculum.by == "length":
        return _summed({name: np.diff(at, prepend=0) - 1 for name, at in ends.items()}, ends, names, grid)
    scores = {name: _scores(dataset, name, len(ends[name]), curriculum.scores) for name in used}
    low = min(float(found.min()) for found in scores.values())
    step = (max(float(found.max()) for found in scores.values()) - low) / _STEPS
    levels = {name: np.round((found - low) / (step or 1.0)).astype(np.int64) for name, found in scores.items()}
    found = _summed(levels, ends, names, grid)
    return Difficulty(found.sums_W, grid.context, low, step or 1.0)


def _item_ends(dataset: Dataset, source: str) -> Ints:
    """Where each item ends in a source's training tokens, its end-of-text included. Reads all of them once."""
    end_id = dataset.tokenizer().eot_id
    ends, offset = [np.empty(0, dtype=np.int64)], 0
    for block in dataset.stream(source, "train").blocks():
        ends.append(np.flatnonzero(block == end_id) + offset + 1)
        offset += len(block)
    found = np.concatenate(ends)
    return found if len(found) and found[-1] == offset else np.append(found, offset)


def _scores(dataset: Dataset, source: str, items: int, declared: Mapping[str, float]) -> npt.NDArray[np.float64]:
    """The score of each item of a source: of its row, or the one declared for the source."""
    found = dataset.scores(source)
    if found is not None:
        if len(found) != items:
            raise DataError(
                f"{dataset.folder}: '{source}' has {items:,} items and {len(found):,} scores; `ondevice data build` "
                "makes them again."
            )
        return found
    if source not in declared:
        raise UsageError(
            f"data.curriculum.by = 'score', but '{source}' has no scores; give it score_field (JSONL, CSV, Parquet) or "
            "one score for all of it (score = 2.0), or take by = 'length'."
        )
    return np.full(items, declared[source], dtype=np.float64)


def _summed(values: Mapping[str, Ints], ends: Mapping[str, Ints], names: Sequence[str], grid: Grid) -> Difficulty:
    """For each window the sum over its tokens of the value of the item that the token is in."""
    sums = [
        _window_sums(values[name], ends[name], windows, grid.context)
        for name, windows in zip(names, grid.windows.tolist(), strict=True)
        if windows
    ]
    return Difficulty(np.concatenate(sums), grid.context)


def _window_sums(values: Ints, ends: Ints, windows: int, context: int) -> Ints:
    """Differences of the running sum over tokens, at the borders of windows."""
    running = np.concatenate([[0], np.cumsum(values * np.diff(ends, prepend=0))])
    starts = np.concatenate([[0], ends])
    borders = np.arange(windows + 1, dtype=np.int64) * context
    items = np.minimum(np.searchsorted(ends, borders, side="right"), len(ends) - 1)
    at: Ints = running[items] + values[items] * (borders - starts[items])
    return np.diff(at)
