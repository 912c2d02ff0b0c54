"""One optimizer step as a transaction: begin, accumulate micro-batches, update. Only the loop decides when.

The loss is normalised by the unmasked tokens of the whole effective batch, so cutting the batch into micro-batches
never changes what is learned. Nothing is written to the weights before loss and gradient norm are known to be finite,
but where a layerwise fit uses gradients as they come: there a step may be torn, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from ondevice.data.cursor import Batch
from ondevice.data.packed import flattened
from ondevice.model.decoder import Decoder, Entering
from ondevice.model.layers import Embedding, Linear
from ondevice.model.layerwise import LayerwiseBatch
from ondevice.model.loss import IGNORE, WeightGradient, linear_cross_entropy
from ondevice.model.products import round_rows
from ondevice.run.recipe import Fit, Recipe
from ondevice.train.below import Below, Row
from ondevice.train.clip import Clip, Norms
from ondevice.train.compiler import Compiler
from ondevice.train.layerwise import LayerwiseStep, NonFiniteError, TornError
from ondevice.train.optimizer import Optimizer

__all__ = ["Engine", "NonFiniteError", "StepResult", "TornError", "micro_batches"]

Lengths = tuple[int, ...] | None


@dataclass(frozen=True)
class StepResult:
    """``loss``: nats per unmasked token, before the update. ``tokens``: unmasked tokens of the effective batch."""

    loss: float
    grad_norm: float
    tokens: int


def micro_batches(batch: Batch, rows: int) -> Iterator[tuple[np.ndarray, np.ndarray, Lengths, tuple[Row, ...]]]:
    """Inputs and labels of the effective batch in pieces of ``rows`` sequences, the last maybe smaller; of examples
    also their lengths, all of a piece in one row, and which rows they came in."""
    for first in range(0, len(batch.x_BT), rows):
        piece = slice(first, first + rows)
        if batch.lengths_B is None:
            yield batch.x_BT[piece], batch.y_BT[piece], None, ()
        else:
            numbers = () if batch.rows_B is None else batch.rows_B[piece].tolist()
            named = tuple(Row(*each) for each in zip(numbers, batch.lengths_B[piece], strict=False))
            yield *flattened(batch.x_BT[piece], batch.y_BT[piece], batch.lengths_B[piece], round_rows), named


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
        clip_scope: str = "all",
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self.loss_chunk_tokens = loss_chunk_tokens
        self._clip, self._precision = Clip(most=clip, scope=clip_scope), precision
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.below = Below.of(model)
        self.compile_s: float | None = None  # that compiling for the fit took; None: nothing is compiled
        self._compiler: Compiler | None = None
        self._layerwise: tuple[int, int] | None = None  # kept and repeated blocks
        self._step: LayerwiseStep | None = None
        self._head_gradient: WeightGradient | None = None
        if isinstance(model.embed, Embedding):
            model.embed.adds_to_grad = model.head is None
        self._linear = [module for module in model.modules() if isinstance(module, Linear)]
        self._rows = self._tokens = 0
        self._loss_sum = 0.0
        self._random: torch.Tensor | None = None

    @classmethod
    def of(cls, model: Decoder, optimizer: Optimizer, recipe: Recipe, fit: Fit) -> Engine:
        """The engine of a run, compiled where its recipe says so. Raises DeviceError."""
        engine = cls(
            model,
            optimizer,
            clip=recipe.train.clip,
            clip_scope=recipe.train.clip_scope,
            precision=recipe.train.precision,
            loss_chunk_tokens=fit.loss_chunk_tokens,
        )
        if (train := recipe.train).compile:
            engine._compiler = Compiler(model, batch=train.batch, precision=train.precision)
        engine.use(fit)
        return engine

    def use(self, fit: Fit) -> None:
        """Works by another fit from the next step on; micro-batches and threads are the business of the caller, threads
        before this. Raises DeviceError where the blocks cannot be compiled for it."""
        self.loss_chunk_tokens = fit.loss_chunk_tokens
        self.model.activation_checkpointing = fit.activation_checkpointing
        self._layerwise = (fit.kept_blocks, fit.repeated_blocks) if fit.layerwise else None
        if self._compiler is not None:
            self.compile_s = self._compiler.use(fit)

    @contextmanager
    def plain(self) -> Iterator[None]:
        """Inside it nothing is compiled."""
        compiled, self.model.compiled = self.model.compiled, None
        try:
            yield
        finally:
            self.model.compiled = compiled

    @property
    def torn(self) -> bool:
        """Whether some weights have this step's update and others not."""
        return self._step is not None and self._step.torn

    def begin(self, y_BT: np.ndarray) -> None:
        """Starts a step whose whole effective batch has labels ``y_BT`` (`IGNORE` where masked)."""
        self._rows, self._tokens = len(y_BT), int(np.count_nonzero(y_BT != IGNORE))
        self._loss_sum = 0.0
        self._random = torch.get_rng_state() if self.model.draws else None
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        self._step = self._new_step()
        self._head_gradient = self._new_head_gradient() if self._step is None else None

    def _new_head_gradient(self) -> WeightGradient | None:
        """The buffer of the step before, where there is one."""
        weight, kept = self.model.head_weight, self._head_gradient
        if not (isinstance(weight, torch.nn.Parameter) and weight.requires_grad and weight.dtype == torch.float32):
            return None
        if kept is None or kept.total.shape != weight.shape:
            return WeightGradient(weight.shape, weight.dtype)
        kept.fresh = True
        return kept

    def _new_step(self) -> LayerwiseStep | None:
        if self._layerwise is None:
            return None
        kept, repeated = self._layerwise
        batch = LayerwiseBatch(
            self.model,
            kept_blocks=kept,
            repeated_blocks=repeated if self._clip.waits else 0,
            loss_chunk_tokens=self.loss_chunk_tokens,
            lower=torch.bfloat16 if self._precision == "bf16" else None,
        )
        return LayerwiseStep(batch, self.optimizer, self._parameters, self._clip)

    def abort(self) -> None:
        """Gives up a begun step: gradients are dropped and dropout's random state is as it was before."""
        self._step = self._head_gradient = None
        self.optimizer.zero_grad(set_to_none=True)
        if self._random is not None:
            torch.set_rng_state(self._random)

    def accumulate(
        self, x_BT: np.ndarray, y_BT: np.ndarray, lengths: Lengths = None, rows: tuple[Row, ...] = ()
    ) -> None:
        """Adds the gradient of one micro-batch, of a layerwise step only its forward pass; ``lengths`` of the examples
        that it holds, which came in ``rows``. Raises NonFiniteError at the first loss that is not finite.
        """
        for layer in self._linear:  # torch's own way is the shorter where there is nothing to add to
            layer.adds_to_grad = len(x_BT) < self._rows
        entering = self._entering(x_BT, rows)
        if self._step is not None:
            self._step.add(torch.from_numpy(x_BT), torch.from_numpy(y_BT).flatten(), lengths, entering)
            return
        with _precision(self._precision):
            hidden = self.model(torch.from_numpy(x_BT), lengths=lengths, entering=entering)
            loss_sum = linear_cross_entropy(
                hidden.flatten(0, 1),
                self.model.head_weight,
                torch.from_numpy(y_BT).flatten(),
                chunk_tokens=self.loss_chunk_tokens,
                gradient_scale=1 / max(1, self._tokens),
                weight_gradient=self._head_gradient,
            )
        value = loss_sum.item()
        if not math.isfinite(value):
            raise NonFiniteError(f"the loss became {value}")
        self._loss_sum += value
        if self._head_gradient is not None and isinstance(self.model.head_weight, torch.nn.Parameter):
            self.model.head_weight.grad = self._head_gradient.total
        loss_sum.backward()  # gradients come scaled already

    def _entering(self, x_BT: np.ndarray, rows: tuple[Row, ...]) -> Entering | None:
        """What comes into the first block that learns, where rows of examples go through frozen ones below it."""
        if self.below is None or not rows:
            return None
        with _precision(self._precision):
            return self.below.entering(torch.from_numpy(x_BT), rows)

    def pieces(self, lr: float | None) -> Iterator[None]:
        """What is left of a layerwise step when all micro-batches are in, a block at a time; nothing of another.

        Take all of them or none. ``lr`` None: nothing is learned. Raises NonFiniteError, or TornError with only some
        weights updated.
        """
        if self._step is not None:
            self._set(lr or 0.0)
            yield from self._step.pieces(self._tokens, apply=lr is not None)

    def update(self, lr: float) -> StepResult:
        """Clips and applies the update; of a layerwise step what was left of it, if ``pieces`` did not.

        Raises NonFiniteError with the weights untouched, or TornError.
        """
        if self._step is not None:
            for _ in () if self._step.done else self.pieces(lr):
                pass
            return StepResult(self._step.loss_sum / max(1, self._tokens), self._step.norm, self._tokens)
        norms = Norms(self._parameters)
        norms.add(self._parameters)
        norm = norms.total().item()
        if not math.isfinite(norm):
            raise NonFiniteError(f"the gradient norm became {norm}")
        self._clip.apply(self._parameters, norms)
        self._set(lr)
        self.optimizer.step()
        return StepResult(self._loss_sum / max(1, self._tokens), norm, self._tokens)

    def _set(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr


def _precision(name: str) -> AbstractContextManager[object]:
    return torch.autocast("cpu", dtype=torch.bfloat16) if name == "bf16" else nullcontext()
