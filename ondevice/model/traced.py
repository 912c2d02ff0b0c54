"""What torch's compiler traces in place of functions of the layers that it cannot read: those write into gradients that
exist, and ask the machine which library is the faster. ``ondevice.train.compiler`` is who compiles."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ondevice.model.products import LARGE, layers_by_one_dnn, times_transposed

__all__ = ["linear", "swiglu"]


def linear(x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """``x @ weight.T + bias``; large fp32 products by the library that does them outside of a compiled pass too."""
    if x.numel() * len(weight_OI) < LARGE or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return F.linear(x, weight_OI, bias_O)
    y: Tensor = _Product.apply(x, weight_OI, bias_O)
    return y


def swiglu(gate_up: Tensor) -> Tensor:
    """``silu(gate) * up`` of ``[..., 2 * hidden]``, gate first -> ``[..., hidden]``."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


@torch.library.custom_op("ondevice::product", mutates_args=())
def _product(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    """One call of a compiled pass, which does not look inside."""
    return times_transposed(x_NI, weight_OI, bias_O) if layers_by_one_dnn() else F.linear(x_NI, weight_OI, bias_O)


@_product.register_fake
def _(x_NI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
    return x_NI.new_empty(len(x_NI), len(weight_OI))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight_OI)
        return _product(x.reshape(-1, x.shape[-1]), weight_OI, bias_O).view(*x.shape[:-1], len(weight_OI))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_OI = ctx.saved_tensors
        grad_NO = grad.reshape(-1, len(weight_OI))
        grad_x = _product(grad_NO, weight_OI.t(), None).view(x.shape)
        return grad_x, grad_NO.t() @ x.reshape(-1, x.shape[-1]), grad_NO.sum(0) if ctx.needs_input_grad[2] else None
