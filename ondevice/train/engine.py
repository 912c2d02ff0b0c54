"""One optimizer step as a transaction: begin, accumulate micro-batches, update. Only the loop decides when.

The loss is normalised by the unmasked tokens of the whole effective batch, so cutting the batch into micro-batches
never changes what is learned. Nothing is written to the weights before loss and gradient norm are known to be finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from ondevice.data.cursor import Batch
from ondevice.data.packed import flattened
from ondevice.errors import OndeviceError
from ondevice.model.decoder import Decoder
from ondevice.model.loss import IGNORE, linear_cross_entropy
from ondevice.run.recipe import Fit, Recipe
from ondevice.train.optimizer import Optimizer

Lengths = tuple[int, ...] | None

__all__ = ["Engine", "NonFiniteError", "StepResult", "micro_batches"]


class NonFiniteError(OndeviceError):
    """Loss or gradient is not a finite number; the weights are as they were before the step."""


@dataclass(frozen=True)
class StepResult:
    """``loss``: nats per unmasked token, before the update. ``tokens``: unmasked tokens of the effective batch."""

    loss: float
    grad_norm: float
    tokens: int


def micro_batches(batch: Batch, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray, Lengths]]:
    """Inputs and labels of the effective batch in pieces of ``rows`` sequences, the last maybe smaller; of examples
    also their lengths, all of a piece in one row."""
    for first in range(0, len(batch.x_BT), rows):
        piece = slice(first, first + rows)
        if batch.lengths_B is None:
            yield batch.x_BT[piece], batch.y_BT[piece], None
        else:
            yield flattened(batch.x_BT[piece], batch.y_BT[piece], batch.lengths_B[piece])


class Engine:
    """Runs steps of one model with one optimizer. ``clip`` 0 turns clipping off; ``precision`` is fp32 or bf16."""

    def __init__(
        self,
        model: Decoder,
        optimizer: Optimizer,
        *,
        clip: float,
        precision: str,
        loss_chunk_tokens: int,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.loss_chunk_tokens = loss_chunk_tokens
        self._clip, self._precision = clip, precision
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._tokens = 0
        self._loss_sum = 0.0
        self._random: torch.Tensor | None = None

    @classmethod
    def of(cls, model: Decoder, optimizer: Optimizer, recipe: Recipe, fit: Fit) -> Engine:
        """The engine of a run."""
        return cls(
            model,
            optimizer,
            clip=recipe.train.clip,
            precision=recipe.train.precision,
            loss_chunk_tokens=fit.loss_chunk_tokens,
        )

    def begin(self, y_BT: np.ndarray) -> None:
        """Starts a step whose whole effective batch has labels ``y_BT`` (`IGNORE` where masked)."""
        self._tokens = int(np.count_nonzero(y_BT != IGNORE))
        self._loss_sum = 0.0
        self._random = torch.get_rng_state() if self.model.draws else None
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)

    def abort(self) -> None:
        """Gives up a begun step: gradients are dropped and dropout's random state is as it was before."""
        self.optimizer.zero_grad(set_to_none=True)
        if self._random is not None:
            torch.set_rng_state(self._random)

    def accumulate(self, x_BT: np.ndarray, y_BT: np.ndarray, lengths: Lengths = None) -> None:
        """Adds the gradient of one micro-batch; ``lengths`` of the examples that a row of them holds.

        Raises NonFiniteError at the first loss that is not finite.
        """
        with _precision(self._precision):
            hidden = self.model(torch.from_numpy(x_BT), lengths=lengths)
            loss_sum = linear_cross_entropy(
                hidden.flatten(0, 1),
                self.model.head_weight,
                torch.from_numpy(y_BT).flatten(),
                chunk_tokens=self.loss_chunk_tokens,
            )
        value = loss_sum.item()
        if not math.isfinite(value):
            raise NonFiniteError(f"the loss became {value}")
        self._loss_sum += value
        (loss_sum / max(1, self._tokens)).backward()

    def update(self, lr: float) -> StepResult:
        """Clips and applies the update. Raises NonFiniteError with the weights untouched."""
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._clip or math.inf).item()
        if not math.isfinite(norm):
            raise NonFiniteError(f"the gradient norm became {norm}")
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return StepResult(self._loss_sum / max(1, self._tokens), norm, self._tokens)


def _precision(name: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", dtype=torch.bfloat16) if name == "bf16" else nullcontext()
