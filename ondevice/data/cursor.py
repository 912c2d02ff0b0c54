"""Batches of windows in an order, from any position: what the training loop reads.

The whole state is one number, the windows served so far. Read by the loop and by reports of exposure; knows no model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.data.curriculum import Curriculum
from ondevice.data.dataset import Dataset
from ondevice.data.difficulty import window_difficulty
from ondevice.data.inventory import window_count
from ondevice.data.mixture import Blend, make_order
from ondevice.data.order import ORDER_VERSION, Grid, Order, Windows
from ondevice.data.packed import Exposure, PackedRows
from ondevice.data.parts import PartsOrder
from ondevice.data.tokenizer_base import content_hash
from ondevice.errors import CheckpointError, DataError, UsageError, nearest
from ondevice.run.recipe import CurriculumRecipe, DataRecipe, PartRecipe, StageRecipe

__all__ = ["CURSOR_VERSION", "Batch", "BatchCursor", "grid_of", "make_grid", "packed_rows"]

CURSOR_VERSION = 1
_AHEAD = 2048  # windows whose places are computed at once: a call of numpy costs about the same for 12 and for 200
_NONE = np.empty(0, dtype=np.int64)
_COUNTED_ON = 1 << 16  # windows up to which exposure is counted on from the last answer


@dataclass(frozen=True, slots=True)
class Batch:
    """``y_BT`` is ``x_BT`` one token later (int64); ``sources_B`` holds indices into ``Dataset.sources``.

    Rows of examples have ``lengths_B``: how long each example in them is. They must not see each other. ``rows_B`` are
    their numbers among all rows, equal in every pass.
    """

    x_BT: npt.NDArray[np.int64]  # noqa: N815
    y_BT: npt.NDArray[np.int64]  # noqa: N815
    sources_B: npt.NDArray[np.int64]  # noqa: N815
    lengths_B: tuple[tuple[int, ...], ...] | None = None  # noqa: N815
    rows_B: npt.NDArray[np.int64] | None = None  # noqa: N815


class BatchCursor:
    """Walks through the training tokens of a dataset.

    ``weights`` replaces the weight of the sources it names; ``max_unique_tokens`` keeps every source to its share of
    that many tokens, from its start. Raises DataError when no source has a single window, UsageError for an unknown
    order or source.

    >>> cursor = BatchCursor(dataset, context=64, batch=12, order="shuffled", seed=1)
    >>> cursor.next().x_BT.shape
    (12, 64)
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        context: int,
        batch: int,
        order: str,
        seed: int,
        weights: Mapping[str, float] | None = None,
        max_unique_tokens: int | None = None,
        temperature: float = 1.0,
        groups: Mapping[str, str] | None = None,
        stages: Sequence[StageRecipe] = (),
        parts: Sequence[PartRecipe] = (),
        curriculum: CurriculumRecipe | None = None,
    ) -> None:
        self._names = tuple(entry.name for entry in dataset.sources)
        shares = _weights(dataset, weights or {})
        blend = Blend(
            names=self._names,
            weights=tuple(shares),
            groups=tuple((groups or {}).get(name, "") for name in self._names),
            temperature=temperature,
            stages=tuple(stages),
        )
        lengths = [entry.train_tokens for entry in dataset.sources]
        self._packed = packed_rows(dataset, context=context, seed=seed, order=order)
        grid = grid_of(dataset, context, seed, max_unique_tokens, order=order)
        self.context = context
        self.batch = batch
        self.windows_per_epoch = grid.total
        self.windows_by_source = tuple(int(n) for n in grid.windows)
        self._parts: PartsOrder | None = None
        if parts:  # which say themselves how much of a source they read
            whole = grid_of(dataset, context, seed, None, order=order)
            self._parts = PartsOrder(whole, self._names, parts, texts=dataset.text_hashes())
        self._order: Order = self._parts or make_order(order, grid, blend, _curriculum(dataset, grid, curriculum))
        self._streams = [dataset.stream(name, "train") for name in self._names]
        identity = [ORDER_VERSION, order, seed, context, shares, lengths, max_unique_tokens, dataset.sha256]
        identity += [self._packed.identity] if self._packed else []
        if curriculum is not None:
            scores = (
                [(entry.scores or {}).get("sha256") for entry in dataset.sources] if curriculum.by == "score" else []
            )
            identity.append(["curriculum", asdict(curriculum), scores])
        self.order_sha256 = content_hash(identity + _identity(blend, order))
        if self._parts is not None:
            self.order_sha256 = self._order_until(self._parts.total)
        self.position = 0
        self._ahead: Windows | None = None
        self._ahead_start = 0
        self._counted = (0, np.zeros(len(lengths), dtype=np.int64))
        nothing = np.zeros(len(lengths), dtype=np.int64)
        self._seen_until = (0, Exposure(examples=nothing, learned=nothing))

    @classmethod
    def of(cls, dataset: Dataset, data: DataRecipe, *, context: int, batch: int) -> BatchCursor:
        """The order of a recipe over its dataset."""
        return cls(
            dataset,
            context=context,
            batch=batch,
            order=data.order,
            seed=data.seed,
            weights=data.weights,
            max_unique_tokens=data.max_unique_tokens,
            temperature=data.temperature,
            groups=data.groups,
            stages=data.stages,
            parts=data.parts,
            curriculum=data.curriculum,
        )

    @property
    def packed_rows(self) -> int | None:
        """Rows of examples there are; None of plain text, whose windows are others in every pass."""
        return None if self._packed is None else sum(self._packed.counts)

    @property
    def epochs(self) -> float:
        """Passes over the text so far, the begun one by its part: windows served over windows there are."""
        return self.position / self.windows_per_epoch

    def next(self) -> Batch:
        """The next ``batch`` windows. Raises DataError when a chunk they lie in is damaged."""
        sources, starts = self._places()
        if self._packed is not None:
            rows = self._packed.rows(sources, starts)
            self.position += self.batch
            return Batch(rows.x_BT, rows.y_BT, sources.copy(), rows.lengths_B, self._packed.firsts[sources] + starts)
        width = self.context + 1
        tokens = np.empty((self.batch, width), dtype=np.int64)
        for row, (source, start) in enumerate(zip(sources.tolist(), starts.tolist(), strict=True)):
            tokens[row] = self._streams[source].read(start, width)
        self.position += self.batch
        return Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), sources.copy())

    def _places(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Sources and starts of the next windows, from those computed ahead."""
        begin = self.position - self._ahead_start
        if self._ahead is None or begin < 0 or begin + self.batch > len(self._ahead.starts):
            self._ahead_start, begin = self.position, 0
            count = max(_AHEAD, self.batch)
            self._ahead = self._order.windows(np.arange(self.position, self.position + count, dtype=np.int64))
        end = begin + self.batch
        return self._ahead.sources[begin:end], self._ahead.starts[begin:end]

    def exposure(self, position: int | None = None) -> dict[str, dict[str, float]]:
        """For each source after ``position`` windows (now, if not given): ``samples`` (windows), ``tokens``, and
        ``epochs``, which is how often its windows were read on the mean; also ``examples`` and ``learned_tokens`` where
        windows are rows of examples."""
        tokens, epochs = self.tokens_by_source(position), self.epochs_by_source(position)
        found: dict[str, dict[str, float]] = {
            name: {"samples": count // self.context, "tokens": count, "epochs": epochs[name]}
            for name, count in tokens.items()
        }
        if self._packed is not None:
            seen = self._seen(self._packed, self.position if position is None else position)
            for name, examples, learned in zip(self._names, seen.examples.tolist(), seen.learned.tolist(), strict=True):
                found[name] |= {"examples": examples, "learned_tokens": learned}
        return found

    def _seen(self, packed: PackedRows, position: int) -> Exposure:
        """What the rows before a position hold; counted on from the last answer, in blocks."""
        at, seen = self._seen_until if self._seen_until[0] <= position else (0, packed.exposure(_NONE, _NONE))
        for start in range(at, position, _COUNTED_ON):
            places = self._order.windows(np.arange(start, min(start + _COUNTED_ON, position), dtype=np.int64))
            more = packed.exposure(places.sources, places.starts)
            seen = Exposure(examples=seen.examples + more.examples, learned=seen.learned + more.learned)
        self._seen_until = (position, seen)
        return seen

    def epochs_by_source(self, position: int | None = None) -> dict[str, float]:
        """How often the windows of each source were read on the mean, after ``position`` windows (now)."""
        tokens = self.tokens_by_source(position)
        return {
            name: round(count / self.context / windows, 4) if windows else 0.0
            for (name, count), windows in zip(tokens.items(), self.windows_by_source, strict=True)
        }

    def places(self, positions: npt.NDArray[np.int64]) -> Windows:
        """Source, start and epoch of the windows at any positions, without reading them."""
        return self._order.windows(positions)

    def difficulty(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.float64] | None:
        """Mean length in tokens or mean score of the windows at any positions; None where the order knows none."""
        return self._order.difficulty(positions) if isinstance(self._order, Curriculum) else None

    def tokens_by_source(self, position: int | None = None) -> dict[str, int]:
        """Tokens learned from each source after ``position`` windows (now, if not given)."""
        wanted = self.position if position is None else position
        at, counts = self._counted
        # Of a chain, many short parts have an order each, which is dearer than what counts them.
        if 0 <= wanted - at <= (_COUNTED_ON if self._parts is None else _AHEAD):
            served = self._order.windows(np.arange(at, wanted, dtype=np.int64)).sources
            counts = counts + np.bincount(served, minlength=len(counts))
        else:
            counts = self._order.counts(wanted)
        self._counted = (wanted, counts)
        return {name: int(n) * self.context for name, n in zip(self._names, counts, strict=True)}

    def state_dict(self) -> dict[str, Any]:
        return {"v": CURSOR_VERSION, "position": self.position, "order_sha256": self._order_until(self.position)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to a saved position. Raises CheckpointError for another order or a newer version."""
        version, position = state.get("v"), state.get("position")
        if version != CURSOR_VERSION:
            raise CheckpointError(
                f"The data cursor has version {version}, this program reads {CURSOR_VERSION}; update ondevice."
            )
        if not isinstance(position, int) or position < 0:
            raise CheckpointError(f"The data cursor has no valid position ({position!r}); take an earlier checkpoint.")
        if state.get("order_sha256") != self._order_until(position):
            raise CheckpointError(
                "The checkpoint was made with other data or another order; restore the dataset and its order, "
                "or fork the run."
            )
        self.position = position

    def _order_until(self, position: int) -> str:
        """Hash of the order as far as it was read: parts of a chain that were not begun yet may change."""
        return self.order_sha256 if self._parts is None else content_hash([ORDER_VERSION, self._parts.digest(position)])


def _identity(blend: Blend, order: str) -> list[Any]:
    """What else decides the order, where it does: orders of before there was more keep their hash."""
    tempered = order in ("proportional", "source_balanced") and blend.temperature != 1.0
    return [
        *([["temperature", blend.temperature]] if tempered else []),
        *([["groups", list(blend.groups)]] if order == "source_balanced" else []),
        *([["stages", [asdict(stage) for stage in blend.stages]]] if order == "staged" else []),
    ]


def _curriculum(dataset: Dataset, grid: Grid, wish: CurriculumRecipe | None) -> Callable[[], Order] | None:
    """What makes the order by difficulty, where one is wished for: it reads every token once."""
    if wish is not None and dataset.examples is not None:
        raise UsageError("data.order = 'curriculum' is for plain text; take shuffled for examples.")
    return None if wish is None else lambda: Curriculum(grid, window_difficulty(dataset, grid, wish), wish)


def _weights(dataset: Dataset, given: Mapping[str, float]) -> list[float]:
    names = [entry.name for entry in dataset.sources]
    for name, weight in given.items():
        if name not in names:
            raise UsageError(f"weights: no source '{name}'{nearest(name, names)}.")
        if not 0 < weight < float("inf"):
            raise UsageError(f"weights: the weight of '{name}' is {weight}; it must be above 0.")
    return [float(given.get(entry.name, entry.weight)) for entry in dataset.sources]


def make_grid(lengths: Sequence[int], context: int, seed: int, cap: int | None) -> Grid:
    """The windows of every source, by its training tokens. Raises DataError when there are none."""
    windows = np.array([window_count(length, context) for length in lengths], dtype=np.int64)
    if not windows.any():
        raise DataError(
            f"The corpus is smaller than one block: its largest source has {max(lengths, default=0)} training tokens "
            f"and a window needs {context + 1}; add text or take a smaller model.context."
        )
    if cap is None or cap >= int(windows.sum()) * context:
        return Grid(windows, np.array(lengths, dtype=np.int64), context, seed)
    if cap < context:
        raise DataError(f"data.max_unique_tokens = {cap} is less than one window of {context} tokens; raise it.")
    capped = _capped(windows, cap // context)
    return Grid(capped, capped * context + 1, context, seed)


def packed_rows(dataset: Dataset, *, context: int, seed: int, order: str) -> PackedRows | None:
    """The rows of a dataset of examples; None for plain text. Raises DataError where no example fits in a row."""
    if dataset.examples is None:
        return None
    rows = PackedRows(dataset, context=context, seed=seed, shuffled=order not in ("sequential", "alphabetical"))
    if not sum(rows.counts):
        raise DataError(f"No example is short enough for a context of {context} tokens; make model.context larger.")
    return rows


def grid_of(dataset: Dataset, context: int, seed: int, cap: int | None, *, order: str) -> Grid:
    """The windows of a dataset; a row of examples is a window, found by its number. Raises DataError."""
    packed = packed_rows(dataset, context=context, seed=seed, order=order)
    if packed is None:
        return make_grid([entry.train_tokens for entry in dataset.sources], context, seed, cap)
    rows = np.array(packed.counts, dtype=np.int64)
    if cap is not None and cap < int(rows.sum()) * context:
        rows = _capped(rows, max(1, cap // context))
    return Grid(rows, rows + 1, 1, seed)


def _capped(windows: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """``total`` windows in the proportion of those there are (largest remainders)."""
    exact = windows * (total / int(windows.sum()))
    result = np.floor(exact).astype(np.int64)
    rest = total - int(result.sum())
    result[np.argsort(result - exact, kind="stable")[:rest]] += 1
    return result
