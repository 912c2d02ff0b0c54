"""AdamW whose state takes a quarter: both averages in 8 bits, with a scale for each block of 256 numbers.

Of a number's share of its block's largest magnitude the square root is stored (of the average of squares the fourth
root), so that small numbers keep a small error of their own: about 1 % near the top, 4 % at a hundredth of it. What
is lost is dithered before rounding by noise that the step fixes, so that slow averages neither stick nor drift, and a
resumed run has the same bits. The arithmetic between is that of `ondevice.train.adamw`, piece by piece in fp32.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.train.adamw import SLOTS, AdamW

__all__ = ["BLOCK", "SMALLEST", "AdamW8"]

BLOCK = 256  # numbers with one scale
SMALLEST = 4096  # parameters with fewer numbers (norms, biases) keep their state in fp32
_PIECE = 1 << 18  # numbers whose state exists in fp32 at once; whole blocks
_NOISE = 1 << 16  # different beginnings in the noise
_SLOTS = ("exp_avg", "exp_avg_scale", "exp_avg_sq", "exp_avg_sq_scale", "step")


class AdamW8(AdamW):
    """Groups are dicts with ``params`` and ``weight_decay``; ``lr`` of a group may be set before every step."""

    def slots(self, parameter: nn.Parameter) -> tuple[str, ...]:
        return SLOTS if parameter.numel() < SMALLEST else _SLOTS

    def _step(self, group: dict[str, Any]) -> None:
        small = [parameter for parameter in group["params"] if parameter.numel() < SMALLEST]
        super()._step({**group, "params": small})
        for parameter in group["params"]:
            if parameter.numel() >= SMALLEST and parameter.grad is not None:
                self._step_packed(parameter, group)

    def _step_packed(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state = self._packed_state_of(parameter)
        state["step"] += 1
        buffers = torch.empty(2, min(_PIECE, -(-parameter.numel() // BLOCK) * BLOCK))
        for number, piece in enumerate(_pieces(parameter, state)):
            weight, gradient, codes, scale, square_codes, square_scale = piece
            count = len(weight)
            average, square = buffers[:, : -(-count // BLOCK) * BLOCK]
            _unpack(codes, scale, out=average)
            _unpack_square(square_codes, square_scale, out=square)
            self._update([weight], [gradient], [average[:count]], [square[:count]], [state["step"]], group)
            noise = _noise(int(state["step"]), number, len(average))
            _pack(average, noise, codes, scale)
            _pack_square(square, noise, square_codes, square_scale)

    def _packed_state_of(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.state.setdefault(parameter, {})
        if not state:
            blocks = -(-parameter.numel() // BLOCK)
            state["exp_avg"] = torch.zeros(parameter.shape, dtype=torch.int8)
            state["exp_avg_scale"] = torch.zeros(blocks)
            state["exp_avg_sq"] = torch.zeros(parameter.shape, dtype=torch.uint8)
            state["exp_avg_sq_scale"] = torch.zeros(blocks)
            state["step"] = torch.zeros((), dtype=torch.float32)
        return state


def _pieces(parameter: nn.Parameter, state: dict[str, Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Weights, gradient, codes and scales of both averages, some blocks at a time."""
    assert parameter.grad is not None
    flat = [parameter.data.view(-1), parameter.grad.reshape(-1)]
    codes, square_codes = state["exp_avg"].view(-1), state["exp_avg_sq"].view(-1)
    for first in range(0, parameter.numel(), _PIECE):
        part, blocks = slice(first, first + _PIECE), slice(first // BLOCK, (first + _PIECE) // BLOCK)
        scales = state["exp_avg_scale"][blocks], state["exp_avg_sq_scale"][blocks]
        yield flat[0][part], flat[1][part], codes[part], scales[0], square_codes[part], scales[1]


def _unpack(codes: Tensor, scale: Tensor, *, out: Tensor) -> None:
    """fp32, filled up with zeros to whole blocks."""
    root = _filled(codes, out).div_(127)
    root.mul_(root.abs()).view(-1, BLOCK).mul_(scale[:, None])


def _unpack_square(codes: Tensor, scale: Tensor, *, out: Tensor) -> None:
    _filled(codes, out).div_(255).square_().square_().view(-1, BLOCK).mul_(scale[:, None])


def _filled(codes: Tensor, full: Tensor) -> Tensor:
    full[: len(codes)].copy_(codes)
    full[len(codes) :].zero_()
    return full


def _pack(numbers: Tensor, noise: Tensor, codes: Tensor, scale: Tensor) -> None:
    magnitude = numbers.abs()
    blocks = magnitude.view(-1, BLOCK)
    torch.amax(blocks, dim=1, out=scale)
    blocks.div_(_not_zero(scale))
    magnitude.sqrt_().mul_(127).add_(noise).round_().clamp_(0, 127)
    codes.copy_(magnitude.copysign_(numbers)[: len(codes)])


def _pack_square(numbers: Tensor, noise: Tensor, codes: Tensor, scale: Tensor) -> None:
    """The numbers are overwritten."""
    blocks = numbers.view(-1, BLOCK)
    torch.amax(blocks, dim=1, out=scale)
    blocks.div_(_not_zero(scale))
    # Never 0: a number divided by its root would take an enormous step.
    numbers.sqrt_().sqrt_().mul_(255).add_(noise).round_().clamp_(1, 255)
    # torch narrows to int8 many times as fast as to uint8, which differs in its highest bit.
    signed = codes.view(torch.int8)
    signed.copy_(numbers.sub_(128)[: len(codes)]).bitwise_xor_(-128)


def _not_zero(scale: Tensor) -> Tensor:
    return scale.masked_fill(scale == 0, 1.0)[:, None]


def _noise(step: int, piece: int, count: int) -> Tensor:
    """Even between -0.5 and 0.5; which, the step and the piece tell."""
    return _table().narrow(0, (step * 40_503 + piece * 25_717) % _NOISE, count)


@functools.cache
def _table() -> Tensor:
    return torch.rand(_PIECE + _NOISE, generator=torch.Generator().manual_seed(8)) - 0.5
