"""Validation loss per source: nats per token and bits per byte over a fixed set of windows.

Formulas: loss = mean negative log-likelihood; perplexity = exp(loss); bits per byte = loss x tokens / (ln 2 x bytes of
the same text). The windows depend only on the dataset, the context and ``max_tokens``, never on the step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ondevice.data.dataset import Dataset, SourceEntry
from ondevice.data.packed import Rows, flattened, packed_source
from ondevice.data.tokenizer import Tokenizer
from ondevice.model.decoder import Decoder
from ondevice.model.loss import IGNORE, linear_cross_entropy
from ondevice.model.products import round_rows
from ondevice.run.recipe import Fit, Recipe

__all__ = [
    "Evaluation",
    "SourceLoss",
    "Tokens",
    "ValidationText",
    "example_rows",
    "language_losses",
    "loss_windows",
    "mixed_loss",
]


class Tokens(Protocol):
    """One source's tokens in a row."""

    def __len__(self) -> int: ...
    def read(self, start: int, count: int) -> np.ndarray: ...


class ValidationText(Protocol):
    """What losses are measured on: a dataset, or its text under another tokenizer."""

    @property
    def sources(self) -> Sequence[SourceEntry]: ...
    def stream(self, source: str, split: str) -> Tokens: ...
    def tokenizer(self) -> Tokenizer: ...


@dataclass(frozen=True, kw_only=True)
class SourceLoss:
    """Loss of one source: ``nats`` per token over ``tokens`` predicted tokens that stand for ``bytes`` of text."""

    nats: float
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.nats, 700.0))

    @property
    def bits_per_byte(self) -> float | None:
        """None where the text has no bytes (only end-of-document tokens)."""
        return self.nats * self.tokens / (math.log(2) * self.bytes) if self.bytes else None


class Evaluation:
    """Measures every source that has validation text, a batch at a time, so that its caller may rest in between.

    >>> evaluation = Evaluation(model, dataset, max_tokens=0, batch=8, loss_chunk_tokens=2048)  # doctest: +SKIP
    >>> for _ in evaluation.batches(): pass  # doctest: +SKIP
    >>> evaluation.losses  # doctest: +SKIP
    """

    def __init__(
        self, model: Decoder, dataset: ValidationText, *, max_tokens: int, batch: int, loss_chunk_tokens: int
    ) -> None:
        self._model, self._dataset = model, dataset
        self._max_tokens, self._batch, self._chunk = max_tokens, batch, loss_chunk_tokens
        self._byte_lengths = dataset.tokenizer().byte_lengths()
        self.losses: dict[str, SourceLoss] = {}

    @classmethod
    def of(cls, model: Decoder, dataset: ValidationText, recipe: Recipe, fit: Fit) -> Evaluation:
        """The evaluation that a run makes again and again."""
        return cls(
            model,
            dataset,
            max_tokens=recipe.eval.max_tokens,
            batch=fit.micro_batch,
            loss_chunk_tokens=fit.loss_chunk_tokens,
        )

    def batches(self) -> Iterator[None]:
        """Evaluates one batch per item; `losses` is complete when it ends."""
        for entry in self._dataset.sources:
            if isinstance(self._dataset, Dataset) and self._dataset.examples is not None:
                yield from self._examples(self._dataset, entry.name)
                continue
            stream = self._dataset.stream(entry.name, "val")
            if len(stream) >= 2:
                yield from self._source(entry.name, stream)

    def record(self) -> dict[str, dict[str, Any]]:
        """What is known of each source: ``val_loss`` (nats per token), ``bits_per_byte`` and ``val_tokens``."""
        return {
            "val_loss": {name: loss.nats for name, loss in self.losses.items()},
            "bits_per_byte": {name: loss.bits_per_byte for name, loss in self.losses.items()},
            "val_tokens": {name: loss.tokens for name, loss in self.losses.items()},
        }

    def _source(self, name: str, stream: Tokens) -> Iterator[None]:
        total, tokens, size = 0.0, 0, 0
        for x_BT, y_BT in loss_windows(stream, self._model.shape.context, self._max_tokens, self._batch):
            total += self._loss_sum(x_BT, y_BT)
            real = y_BT[y_BT != IGNORE]
            tokens, size = tokens + real.size, size + int(self._byte_lengths[real].sum())
            yield
        self.losses[name] = SourceLoss(nats=total / tokens, tokens=tokens, bytes=size)

    def _examples(self, dataset: Dataset, name: str) -> Iterator[None]:
        """The answers of a source's held-out examples."""
        total, tokens, size = 0.0, 0, 0
        context = self._model.shape.context
        for rows in example_rows(dataset, name, context, self._max_tokens, self._batch):
            x_1N, y_1N, lengths = flattened(*rows, round_rows)
            total += self._loss_sum(x_1N, y_1N, lengths)
            real = y_1N[y_1N != IGNORE]
            tokens, size = tokens + real.size, size + int(self._byte_lengths[real].sum())
            yield
        if tokens:
            self.losses[name] = SourceLoss(nats=total / tokens, tokens=tokens, bytes=size)

    def _loss_sum(self, x_BT: np.ndarray, y_BT: np.ndarray, lengths: tuple[int, ...] | None = None) -> float:
        self._model.eval()
        if (vocabulary := self._model.vocabulary) is not None:
            x_BT, y_BT = vocabulary.rows(x_BT), vocabulary.rows(y_BT)
        with torch.inference_mode():
            hidden = self._model(torch.from_numpy(x_BT), lengths=lengths).flatten(0, 1)
            labels = torch.from_numpy(y_BT).flatten()
            return linear_cross_entropy(hidden, self._model.head_weight, labels, chunk_tokens=self._chunk).item()


def loss_windows(stream: Tokens, context: int, max_tokens: int, batch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Inputs and labels [<= batch, context]; labels beyond the end of the text are masked."""
    windows = math.ceil((len(stream) - 1) / context)
    wanted = windows if not max_tokens else min(windows, max(1, max_tokens // context))
    chosen = [index * windows // wanted for index in range(wanted)]
    for first in range(0, wanted, batch):
        rows = chosen[first : first + batch]
        x_BT = np.zeros((len(rows), context), np.int64)
        y_BT = np.full((len(rows), context), IGNORE, np.int64)
        for row, window in enumerate(rows):
            start = window * context
            ids = stream.read(start, min(context + 1, len(stream) - start)).astype(np.int64)
            x_BT[row, : len(ids) - 1], y_BT[row, : len(ids) - 1] = ids[:-1], ids[1:]
        yield x_BT, y_BT


def example_rows(dataset: Dataset, source: str, context: int, max_tokens: int, batch: int) -> Iterator[Rows]:
    """Packed held-out examples, about ``max_tokens`` places of them (0: all), evenly from all rows."""
    packed = packed_source(dataset, source, "val", context=context, seed=0, shuffled=True)
    wanted = len(packed) if not max_tokens else min(len(packed), max(1, max_tokens // context))
    chosen = [index * len(packed) // wanted for index in range(wanted)]
    for first in range(0, wanted, batch):
        yield packed.rows(chosen[first : first + batch])


def language_losses(losses: Mapping[str, SourceLoss], languages: Mapping[str, str]) -> dict[str, float]:
    """Nats per token of all sources of a language together; sources without a language are left out."""
    totals: dict[str, tuple[float, int]] = {}
    for name, loss in losses.items():
        if language := languages.get(name):
            nats, tokens = totals.get(language, (0.0, 0))
            totals[language] = nats + loss.nats * loss.tokens, tokens + loss.tokens
    return {language: nats / tokens for language, (nats, tokens) in totals.items()}


def mixed_loss(losses: Mapping[str, SourceLoss], weights: Mapping[str, float] | None = None) -> float | None:
    """``val_loss_mixed``: weighted mean of the sources' losses, each equal where no weights are given."""
    if not losses:
        return None
    shares = {name: (weights or {}).get(name, 1.0) for name in losses}
    return sum(losses[name].nats * share for name, share in shares.items()) / sum(shares.values())
