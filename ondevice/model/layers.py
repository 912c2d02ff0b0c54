"""Small layers both decoders are made of, written for CPUs: few kernels, little kept for backward.

The autograd functions compute what torch's own compositions compute; they exist because every elementwise kernel
is a pass over memory, and on phones a slow one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ondevice.model import traced
from ondevice.model.products import LARGE, layers_by_one_dnn, times_transposed

__all__ = ["Embedding", "Linear", "RMSNorm", "add_rows", "rms_norm", "swiglu"]

_WIDENED = (torch.float32, torch.bfloat16)


class Linear(nn.Linear):
    """`nn.Linear` that leaves its weights uninitialised and the global random state alone; see `build_model`.

    With ``adds_to_grad`` backward adds the gradient to ``weight.grad`` where there is one, within the product: made
    apart and added, it is written once and read twice more for each further micro-batch. In training mode large
    products are by the faster library, with and without gradients, so that recomputed blocks have the same bits.
    """

    adds_to_grad = False

    def reset_parameters(self) -> None:
        """Nothing: weights come from `build_model` or from a file."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return traced.linear(x, self.weight, self.bias)
        if torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        large = x.numel() * self.out_features >= LARGE
        foreign = large and x.dtype == torch.float32 and self.weight.dtype in _WIDENED and layers_by_one_dnn()
        if x.dtype == self.weight.dtype and not (self.training and (foreign or self.adds_to_grad)):
            return super().forward(x)
        y: Tensor = _Product.apply(x, self.weight, self.bias, self.adds_to_grad, foreign)
        return y


class _Product(torch.autograd.Function):
    """``x @ weight.T + bias``; ``foreign`` by oneDNN, but for the weight's gradient, where it is not the faster. A bf16
    weight is widened for each product, and its gradient made in fp32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, adds_to_grad: bool, foreign: bool
    ) -> Tensor:
        ctx.kept = weight_OI if adds_to_grad else None  # itself, not a saved copy: its .grad is wanted
        ctx.foreign = foreign
        ctx.save_for_backward(x, weight_OI)
        x_NI, weight_OI = x.reshape(-1, x.shape[-1]), weight_OI.to(x.dtype)
        y_NO = times_transposed(x_NI, weight_OI, bias_O) if foreign else F.linear(x_NI, weight_OI, bias_O)
        # No view, for adapters add to it in place.
        y: Tensor = torch.ops.aten._unsafe_view(y_NO, (*x.shape[:-1], len(weight_OI)))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_OI = ctx.saved_tensors
        grad_NO = grad.reshape(-1, len(weight_OI))
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            weight_OI = weight_OI.to(x.dtype)
            product = times_transposed(grad_NO, weight_OI.t()) if ctx.foreign else grad_NO @ weight_OI
            grad_x = product.view_as(x)
        if ctx.needs_input_grad[1]:
            grad_weight = _added(ctx.kept, grad_NO, x.reshape(-1, x.shape[-1]))
        return grad_x, grad_weight, grad_NO.sum(0) if ctx.needs_input_grad[2] else None, None, None


def _added(kept: Tensor | None, grad_NO: Tensor, x_NI: Tensor) -> Tensor | None:
    """The weight's gradient; None where it was added to that of ``kept``."""
    if kept is None or kept.grad is None:
        return grad_NO.t() @ x_NI
    if kept.grad.dtype == x_NI.dtype:
        kept.grad.addmm_(grad_NO.t(), x_NI)
    else:
        kept.grad.add_(grad_NO.t() @ x_NI)
    return None


class Embedding(nn.Embedding):
    """`nn.Embedding` that leaves its weights uninitialised and the global random state alone; see `build_model`.

    With ``adds_to_grad`` backward adds the rows it has to ``weight.grad`` where there is one, rather than make a table
    that is nearly all zeros and add that: for a table that is the head too, whose gradient is there before. Rows of a
    bf16 table are given in fp32, and their gradients added up so.
    """

    adds_to_grad = False

    def reset_parameters(self) -> None:
        """Nothing: weights come from `build_model` or from a file."""

    def forward(self, ids: Tensor) -> Tensor:
        narrow = self.weight.dtype == torch.bfloat16
        if not ((self.adds_to_grad or narrow) and self.weight.requires_grad and torch.is_grad_enabled()):
            return super().forward(ids).float() if narrow else super().forward(ids)
        rows: Tensor = _Rows.apply(self.weight, ids)
        return rows


class _Rows(torch.autograd.Function):
    """Rows of a table by number, whose gradient goes to ``weight.grad`` directly."""

    @staticmethod
    def forward(ctx: Any, weight_VC: Tensor, ids: Tensor) -> Tensor:
        ctx.weight = weight_VC  # itself, not a saved copy: its .grad is wanted
        ctx.save_for_backward(ids)
        rows = F.embedding(ids, weight_VC)
        return rows.float() if rows.dtype == torch.bfloat16 else rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        (ids,) = ctx.saved_tensors
        if ctx.weight.grad is not None:
            add_rows(ctx.weight.grad, ids, grad)
            return None, None
        table_VC = torch.zeros_like(ctx.weight)
        add_rows(table_VC, ids, grad)
        return table_VC, None


def add_rows(table_VC: Tensor, ids: Tensor, rows: Tensor) -> None:
    """Adds ``rows [..., C]`` to the table at ``ids [...]``; rows of one id are added up first, as the dense gradient
    of torch's embedding has it, so that the bits are the same."""
    seen_U, places_N = ids.flatten().unique(return_inverse=True)
    sums_UC = rows.new_zeros(len(seen_U), table_VC.shape[1])
    sums_UC.index_add_(0, places_N, rows.reshape(-1, table_VC.shape[1]))
    table_VC.index_add_(0, seen_U, sums_UC.to(table_VC.dtype))


class RMSNorm(nn.Module):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimension."""

    def __init__(self, width: int, *, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)


def rms_norm(x: Tensor, weight_C: Tensor, eps: float) -> Tensor:
    """RMS norm of ``x [..., C]``. Half-precision inputs go to torch, which squares them in fp32."""
    if x.dtype in (torch.float32, torch.float64):
        normed: Tensor = _RmsNorm.apply(x, weight_C, eps)
        return normed
    return F.rms_norm(x, (x.shape[-1],), weight_C.to(x.dtype), eps)


class _RmsNorm(torch.autograd.Function):
    """Forward and backward 2-5 times as fast on a CPU as torch's own: the two sums are matrix-vector products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_C: Tensor, eps: float) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = inverse.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight_C, inverse)
        return (x * inverse).mul_(weight_C)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        x, weight_C, inverse = ctx.saved_tensors
        width = x.shape[-1]
        product_NC = (grad * x).reshape(-1, width)
        grad_weight = torch.mv(product_NC.t(), inverse.reshape(-1)) if ctx.needs_input_grad[1] else None
        along = torch.mv(product_NC, weight_C).view_as(inverse).mul_(inverse.pow(3)).div_(width)
        return (grad * weight_C).mul_(inverse).addcmul_(x, along, value=-1), grad_weight, None


def swiglu(gate_up: Tensor) -> Tensor:
    """``silu(gate) * up`` of ``[..., 2 * hidden]``, gate first -> ``[..., hidden]``."""
    if torch.compiler.is_compiling():
        return traced.swiglu(gate_up)
    activated: Tensor = _SwiGlu.apply(gate_up)
    return activated


class _SwiGlu(torch.autograd.Function):
    """Keeps only its input: silu is computed again in backward, a quarter less memory for the feed-forward layer."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        ctx.save_for_backward(gate_up)
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        gate, up = gate_up.chunk(2, dim=-1)
        out = torch.empty_like(gate_up)
        out_gate, out_up = out.chunk(2, dim=-1)
        torch.mul(F.silu(gate), grad, out=out_up)
        torch.ops.aten.silu_backward(grad * up, gate, grad_input=out_gate)
        return out
