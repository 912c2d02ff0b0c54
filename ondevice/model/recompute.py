"""Activation checkpointing of one block: only what comes in is kept, the rest is computed again in backward.

torch has its own, whose first call loads the compiler: a second, and 70 MB that a process never gives back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["backward_from", "recomputed"]


def recomputed(block: Callable[[Tensor], Tensor], x: Tensor, *, draws: bool) -> Tensor:
    """``block(x)``, whose gradients are the same to the bit; ``draws`` where it takes random numbers, drawn alike
    again. Parameters of the block get theirs as usual. Differentiable once."""
    # Without an input that wants a gradient there would be no backward to compute it in.
    given = x if x.requires_grad else x.detach().requires_grad_()
    y: Tensor = _Recomputed.apply(given, block, draws)
    return y


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, block: Callable[[Tensor], Tensor], draws: bool) -> Tensor:
        ctx.block = block
        ctx.random = torch.get_rng_state() if draws else None
        ctx.lower = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        ctx.save_for_backward(x)
        return block(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, None]:
        x = ctx.saved_tensors[0].detach().requires_grad_()
        now = torch.get_rng_state()
        if ctx.random is not None:
            torch.set_rng_state(ctx.random)
        with torch.enable_grad(), torch.autocast("cpu", dtype=ctx.lower, enabled=ctx.lower is not None):
            y = ctx.block(x)
        if ctx.random is not None:
            torch.set_rng_state(now)
        backward_from(y, grad)
        return x.grad, None, None


def backward_from(y: Tensor, grad: Tensor) -> None:
    """Backward that begins with ``grad`` at ``y``: given a gradient, torch's own loads what the compiler is made of."""
    with torch.enable_grad():
        seed: Tensor = _Seed.apply(y, grad)
    seed.backward()


class _Seed(torch.autograd.Function):
    """A scalar whose backward gives ``grad`` to ``y``."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, grad: Tensor) -> Tensor:
        ctx.grad = grad
        return y.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, one: Tensor) -> tuple[Tensor, None]:
        grad: Tensor = ctx.grad
        return grad, None
