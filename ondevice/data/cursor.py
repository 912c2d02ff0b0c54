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
from ondevice.data.parts import PartsOrder
from ondevice.data.tokenizer_base import content_hash
from ondevice.errors import CheckpointError, DataError, UsageError, nearest
from ondevice.run.recipe import CurriculumRecipe, DataRecipe, PartRecipe, StageRecipe

__all__ = ["CURSOR_VERSION", "Batch", "BatchCursor", "make_grid"]

CURSOR_VERSION = 1
_AHEAD = 2048  # windows whose places are computed at once: a call of numpy costs about the same for 12 and for 200
_COUNTED_ON = 1 << 16  # windows up to which exposure is counted on from the last answer


@dataclass(frozen=True, slots=True)
class Batch:
    """``y_BT`` is ``x_BT`` one token later (int64); ``sources_B`` holds indices into ``Dataset.sources``."""

    x_BT: npt.NDArray[np.int64]  # noqa: N815
    y_BT: npt.NDArray[np.int64]  # noqa: N815
    sources_B: npt.NDArray[np.int64]  # noqa: N815


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
        grid = make_grid(lengths, context, seed, max_unique_tokens)
        self.context = context
        self.batch = batch
        self.windows_per_epoch = grid.total
        self.windows_by_source = tuple(int(n) for n in grid.windows)
        self._parts: PartsOrder | None = None
        if parts:  # which say themselves how much of a source they read
            whole = make_grid(lengths, context, seed, None)
            self._parts = PartsOrder(whole, self._names, parts, texts=dataset.text_hashes())
        self._order: Order = self._parts or make_order(order, grid, blend, _curriculum(dataset, grid, curriculum))
        self._streams = [dataset.stream(name, "train") for name in self._names]
        identity = [ORDER_VERSION, order, seed, context, shares, lengths, max_unique_tokens, dataset.sha256]
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
    def epoch(self) -> int:
        """Epochs completed: how often as many windows were served as there are."""
        return self.position // self.windows_per_epoch

    def next(self) -> Batch:
        """The next ``batch`` windows. Raises DataError when a chunk they lie in is damaged."""
        sources, starts = self._places()
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
        ``epochs``, which is how often its windows were read on the mean."""
        tokens, epochs = self.tokens_by_source(position), self.epochs_by_source(position)
        return {
            name: {"samples": count // self.context, "tokens": count, "epochs": epochs[name]}
            for name, count in tokens.items()
        }

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


def _capped(windows: npt.NDArray[np.int64], total: int) -> npt.NDArray[np.int64]:
    """``total`` windows in the proportion of those there are (largest remainders)."""
    exact = windows * (total / int(windows.sum()))
    result = np.floor(exact).astype(np.int64)
    rest = total - int(result.sum())
    result[np.argsort(result - exact, kind="stable")[:rest]] += 1
    return result
