"""Everything that must survive a crash, in one place: the state of a run between two optimizer steps."""

from __future__ import annotations

import base64
import dataclasses
import random
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ondevice.data.cursor import Batch, BatchCursor
from ondevice.evaluate.advice import Adviser
from ondevice.model.decoder import Decoder
from ondevice.train.averaging import WeightAverage
from ondevice.train.optimizer import Optimizer

__all__ = ["MOST_LOSSES", "TrainState", "capture_rng", "restore_rng"]

MOST_LOSSES = 1000  # a run measured more often forgets its worst


@dataclass
class TrainState:
    """``step`` updates are done. ``best_loss`` is the lowest mixed validation loss so far, reached at ``best_step``.
    ``average``: what evaluations, samples and checkpoints show instead of the weights in training."""

    model: Decoder
    optimizer: Optimizer
    cursor: BatchCursor
    step: int = 0
    tokens: int = 0
    train_s: float = 0.0
    best_loss: float | None = None
    best_step: int | None = None
    losses: dict[int, float] = field(default_factory=dict)  # step -> mixed validation loss, as last measured
    evaluated: list[int] = field(default_factory=list)
    sampled: list[int] = field(default_factory=list)
    adviser: Adviser = field(default_factory=Adviser)
    average: WeightAverage | None = None

    def next_batch(self) -> Batch:
        """The next batch, its tokens as the rows that they have in the model's tables. Raises DataError."""
        batch, vocabulary = self.cursor.next(), self.model.vocabulary
        if vocabulary is None:
            return batch
        return dataclasses.replace(batch, x_BT=vocabulary.rows(batch.x_BT), y_BT=vocabulary.rows(batch.y_BT))

    def advance(self, tokens: int, *, start_step: int) -> None:
        """Counts a step that was done, the first of the run's own after ``start_step``."""
        self.step += 1
        self.tokens += tokens
        if self.average is not None:
            self.average.add(self.step - start_step)

    def shown(self) -> AbstractContextManager[None]:
        """Inside it the model has the weights that are for use, between two steps only."""
        return nullcontext() if self.average is None else self.average.shown()

    def measured(self, loss: float) -> bool:
        """Remembers a finite validation loss of this step; gives whether it is the best so far."""
        self.losses[self.step] = loss
        if len(self.losses) > MOST_LOSSES:
            del self.losses[max(self.losses, key=lambda step: (self.losses[step], step))]
        best = self.best_loss is None or loss < self.best_loss
        if best:
            self.best_loss, self.best_step = loss, self.step
        return best


def capture_rng() -> dict[str, Any]:
    """State of every global random generator (python, numpy, torch) as JSON values."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [name, base64.b64encode(np.asarray(keys).tobytes()).decode(), position, has_gauss, cached],
        "torch": base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode(),
    }


def restore_rng(saved: dict[str, Any]) -> None:
    """Puts back what `capture_rng` gave."""
    version, internal, gauss = saved["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = saved["numpy"]
    np.random.set_state((name, np.frombuffer(base64.b64decode(keys), np.uint32), position, has_gauss, cached))
    torch.set_rng_state(torch.frombuffer(bytearray(base64.b64decode(saved["torch"])), dtype=torch.uint8))
