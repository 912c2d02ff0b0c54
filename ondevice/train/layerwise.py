"""An optimizer step inside the backward pass: a block's gradients are used, held or dropped as soon as they are whole.

Without clipping, or with each tensor clipped by itself, they are used at once. Where the norm of all is wanted, nothing
is written before it is known to be finite: the gradients of the last blocks are dropped meanwhile and computed again.
Gradients, norm and update have the bits of an ordinary step. Freed memory goes back after each block, since what the C
library keeps of a block lies in gaps; blocks that go back one by one as they are freed cost a fifth of the time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import nn

from ondevice.device.memory import give_back_freed_blocks
from ondevice.errors import OndeviceError
from ondevice.model.decoder import Entering
from ondevice.model.layerwise import LayerwiseBatch
from ondevice.train.clip import Clip, Norms
from ondevice.train.optimizer import Optimizer

__all__ = ["LayerwiseStep", "NonFiniteError", "TornError"]


class NonFiniteError(OndeviceError):
    """Loss or gradient is not a finite number; the weights are as they were before the step."""


class TornError(OndeviceError):
    """A step broke off when some of the weights were updated and others not: only a checkpoint is whole."""


class LayerwiseStep:
    """One step. ``torn``: some weights are updated and others not; ``done``: all are."""

    def __init__(
        self, batch: LayerwiseBatch, optimizer: Optimizer, parameters: Sequence[nn.Parameter], clip: Clip
    ) -> None:
        self._batch, self._optimizer, self._clip = batch, optimizer, clip
        self._parameters, self._norms = parameters, Norms(parameters)
        self.torn = self.done = False
        self.loss_sum = 0.0

    def add(
        self,
        ids_BT: torch.Tensor,
        targets_N: torch.Tensor,
        lengths: Sequence[int] | None = None,
        entering: Entering | None = None,
    ) -> None:
        """Forward of one micro-batch; ``lengths`` of texts that lie side by side; on from what is ``entering``."""
        self._batch.add(ids_BT, targets_N, lengths, entering)

    @property
    def norm(self) -> float:
        """Of all gradients, before clipping; when all were computed."""
        return self._norms.total().item()

    def pieces(self, tokens: int, *, apply: bool) -> Iterator[None]:
        """All that is left of the step, the update included; an item after each block. Without ``apply`` gradients are
        computed and dropped. Raises NonFiniteError with the weights untouched, or TornError.
        """
        self.loss_sum, gradients = self._batch.head(tokens)
        if not math.isfinite(self.loss_sum):
            raise NonFiniteError(f"the loss became {self.loss_sum}")
        give_back_freed_blocks()
        yield
        for found in gradients:
            self._norms.add(found.parameters)
            if not apply or (self._clip.waits and found.comes_again):
                _drop(found.parameters)
            elif not self._clip.waits:
                self._use(found.parameters)
            give_back_freed_blocks()
            yield
        if apply and self._clip.waits:
            yield from self._use_all()
        self.torn, self.done = False, True

    def _use_all(self) -> Iterator[None]:
        if not math.isfinite(norm := self.norm):
            raise NonFiniteError(f"the gradient norm became {norm}")
        self._use(self._parameters)
        give_back_freed_blocks()
        for found in self._batch.again():
            self._use(found.parameters)
            give_back_freed_blocks()
            yield

    def _use(self, group: Iterable[nn.Parameter]) -> None:
        """Clips, updates and drops gradients that are whole."""
        if not self._clip.waits and not self._norms.finite(group):
            trouble = TornError if self.torn else NonFiniteError
            raise trouble("the gradient norm became a number that is not finite")
        self.torn = True
        self._clip.apply(group, self._norms)
        self._optimizer.step()
        _drop(group)


def _drop(group: Iterable[nn.Parameter]) -> None:
    for parameter in group:
        parameter.grad = None
