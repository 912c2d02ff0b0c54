"""AdamW on bf16 weights without a wider copy: each update is computed in fp32 and rounded up or down by chance.

A weight between two bf16 neighbours takes the upper one with the probability of its distance from the lower, so that
the expected weight is the fp32 result, and an update far below the spacing (1/128 to 1/256 of a weight) is made now and
then rather than never. The chance is noise that step, parameter and place fix, so that a resumed run has the same bits,
whatever the order in which parameters are updated. States are fp32 or int8, as `ondevice.train.adamw8` keeps them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ondevice.train.adamw import AdamW
from ondevice.train.adamw8 import AdamW8

__all__ = ["AdamW8Bf16", "AdamWBf16", "round_into"]

_PIECE = 1 << 18  # numbers that exist in fp32 at once
_NOISE = 1 << 16  # different beginnings in the noise
_BITS = 1 << 16  # of an fp32 number that bf16 drops


class AdamWBf16(AdamW):
    """Groups are dicts with ``params`` and ``weight_decay``; parameters that are not bf16 learn as in AdamW."""

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, lr=lr, betas=betas, eps=eps)
        learned = [parameter for group in self.param_groups for parameter in group["params"]]
        self._numbers = {parameter: number for number, parameter in enumerate(learned)}
        self._number = self._piece = 0  # of the parameter that is being updated, and the next part of it

    def _step(self, group: dict[str, Any]) -> None:
        narrow = [parameter for parameter in group["params"] if parameter.dtype == torch.bfloat16]
        super()._step({**group, "params": [each for each in group["params"] if each.dtype != torch.bfloat16]})
        for parameter in narrow:
            self._number, self._piece = self._numbers[parameter], 0
            super()._step({**group, "params": [parameter]})

    def _update(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        averages: list[Tensor],
        squares: list[Tensor],
        steps: list[Tensor],
        group: dict[str, Any],
    ) -> None:
        if weights[0].dtype != torch.bfloat16:
            super()._update(weights, gradients, averages, squares, steps, group)
            return
        tensors = (weights[0].detach(), gradients[0], averages[0], squares[0])
        pieces = [each.reshape(-1).split(_PIECE) for each in tensors]
        for weight, gradient, average, square in zip(*pieces, strict=True):
            wide = weight.float()
            super()._update([wide], [gradient.float()], [average], [square], steps, group)
            round_into(weight, wide, step=int(steps[0]), number=self._number, piece=self._piece)
            self._piece += 1

    def _state_of(self, parameter: torch.nn.Parameter) -> dict[str, Tensor]:
        state = self.state.setdefault(parameter, {})
        if not state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros(parameter.shape), torch.zeros(parameter.shape)
            state["step"] = torch.zeros((), dtype=torch.float32)
        return state


class AdamW8Bf16(AdamWBf16, AdamW8):
    """The same with both averages in 8 bits."""


def round_into(weight: Tensor, wide: Tensor, *, step: int, number: int, piece: int) -> None:
    """Rounds fp32 numbers, which are overwritten, into bf16 ones: the neighbour further from zero with the probability
    of their share of the way to it. ``[N]``, at most 2**18."""
    bits = wide.view(torch.int32)
    bits.add_(_noise(step, number, piece, len(wide))).bitwise_and_(-_BITS)
    weight.copy_(wide)


def _noise(step: int, number: int, piece: int, count: int) -> Tensor:
    """Even between 0 and 2**16 - 1; which, step, parameter and piece tell."""
    return _table().narrow(0, (step * 40_503 + number * 52_711 + piece * 25_717) % _NOISE, count)


@functools.cache
def _table() -> Tensor:
    generator = torch.Generator().manual_seed(16)
    return torch.randint(_BITS, (_PIECE + _NOISE,), dtype=torch.int32, generator=generator)
