"""Rotary position embedding: the tables, and turning queries and keys by them (halves, as transformers does)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ondevice.run.recipe import RopeScaling

__all__ = ["Rotation", "rotate", "rotation_tables"]

Rotation = tuple[Tensor, Tensor]  # cos_T1D and signed sin_T1D


@lru_cache(maxsize=4)
def rotation_tables(context: int, head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Rotation:
    """``cos`` and signed ``sin`` for every position, fp32 ``[context, 1, head_dim]``.

    The first half of ``sin`` is negated, so that turning is ``x * cos + roll(x) * sin``. Not buffers of the model:
    a model built on the meta device, or loaded from a file without them, has them all the same.
    """
    # A table made first while generating must still be usable in training, hence inference_mode(False).
    with torch.inference_mode(False), torch.no_grad(), torch.device("cpu"):
        exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).to(torch.float32) / head_dim
        angles = torch.outer(torch.arange(context, dtype=torch.float32), _scaled(1.0 / theta**exponents, scaling))
        cos, sin = angles.cos(), angles.sin()
        return torch.cat((cos, cos), dim=-1)[:, None], torch.cat((-sin, sin), dim=-1)[:, None]


def _scaled(frequencies: Tensor, scaling: RopeScaling | None) -> Tensor:
    """Radians a token, as `RopeScaling` says; llama3 as in the models of that name."""
    if scaling is None:
        return frequencies
    slow = frequencies / scaling.factor
    if scaling.kind == "linear":
        return slow
    turns = scaling.original_context * frequencies / (2 * math.pi)  # over the context it began with
    share = (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
    ramp = (1 - share) * slow + share * frequencies
    return torch.where(
        turns < scaling.low_frequency, slow, torch.where(turns > scaling.high_frequency, frequencies, ramp)
    )


def rotate(x_BTHD: Tensor, rotation: Rotation) -> Tensor:
    """Each head of ``x`` turned by the angles of its position; ``rotation`` has the T rows that belong to ``x``."""
    turned: Tensor = _Rotate.apply(x_BTHD, *rotation)
    return turned


def _turn(x_BTHD: Tensor, cos_T1D: Tensor, sin_T1D: Tensor, *, direction: int) -> Tensor:
    swapped = x_BTHD.roll(x_BTHD.shape[-1] // 2, dims=-1)
    return (x_BTHD * cos_T1D).addcmul_(swapped, sin_T1D, value=direction)


class _Rotate(torch.autograd.Function):
    """Three kernels forward and three backward, which is the turn in the other direction; nothing of x is kept."""

    @staticmethod
    def forward(ctx: Any, x_BTHD: Tensor, cos_T1D: Tensor, sin_T1D: Tensor) -> Tensor:
        cos_T1D, sin_T1D = cos_T1D.to(x_BTHD), sin_T1D.to(x_BTHD)
        ctx.save_for_backward(cos_T1D, sin_T1D)
        return _turn(x_BTHD, cos_T1D, sin_T1D, direction=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BTHD: Tensor) -> tuple[Tensor, None, None]:
        return _turn(grad_BTHD, *ctx.saved_tensors, direction=-1), None, None
