"""Muon for the matrices inside the blocks, AdamW for embeddings, head, norms and biases, behind one optimizer.

Muon (Jordan et al., 2024) replaces the momentum of a matrix by the nearest orthogonal one, found with five
Newton-Schulz iterations. All in fp32: torch's own hard-codes bfloat16, which phones emulate. Updates are scaled by
``0.2 * sqrt(max(rows, columns))`` so that learning rate and decay mean the same as for AdamW (Liu et al., arXiv
2502.16982).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ondevice.run.recipe import ModelShape
from ondevice.train.adamw import SLOTS, AdamW

__all__ = ["MuonAdamW", "newton_schulz", "row_parts"]

MOMENTUM = 0.95
ITERATIONS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315  # the quintic of Jordan's Muon, steep at zero
_RMS = 0.2


def newton_schulz(stack_MRC: Tensor) -> Tensor:
    """Approximately orthogonal matrices with the same singular vectors: ``[M, rows, columns]`` -> the same shape."""
    x = stack_MRC
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = torch.bmm(x, x.mT)
        poly = torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C)
        x = torch.baddbmm(x, poly, x, beta=_A)
    return x if wide else x.mT


def row_parts(name: str, shape: ModelShape) -> list[int] | None:
    """Rows of the matrices that a fused weight holds; None where a parameter is none of Muon's."""
    if not name.startswith("blocks.") or not name.endswith(".weight") or "norm" in name:
        return None
    if name.endswith("attn.qkv.weight"):
        return [shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.kv_heads * shape.head_dim]
    if name.endswith("mlp.gate_up.weight"):
        return [shape.hidden, shape.hidden]
    return [-1]


class MuonAdamW:
    """Has what the engine and the checkpoint use of a torch optimizer: ``param_groups, state, zero_grad, step``."""

    def __init__(
        self,
        model: nn.Module,
        shape: ModelShape,
        *,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        self._matrices: list[tuple[nn.Parameter, list[int]]] = []
        decayed: list[nn.Parameter] = []
        plain: list[nn.Parameter] = []
        for name, parameter in model.named_parameters():
            parts = row_parts(name, shape)
            if not parameter.requires_grad:
                continue
            if parts is not None:
                self._matrices.append((parameter, parts if parts != [-1] else [parameter.shape[0]]))
            else:
                (decayed if parameter.ndim >= 2 else plain).append(parameter)
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self._adamw = AdamW(groups, lr=lr, betas=betas, eps=eps)
        self._group: dict[str, Any] = {
            "params": [parameter for parameter, _ in self._matrices],
            "lr": lr,
            "weight_decay": weight_decay,
        }
        self.state = self._adamw.state  # parameter -> named tensors, shared by both

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [*self._adamw.param_groups, self._group]

    def slots(self, parameter: nn.Parameter) -> tuple[str, ...]:
        """Names of the state tensors of a parameter."""
        return ("momentum",) if any(parameter is p for p, _ in self._matrices) else SLOTS

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._adamw.zero_grad(set_to_none=set_to_none)
        for parameter, _ in self._matrices:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        self._adamw.step()
        by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
        for parameter, parts in self._matrices:
            if parameter.grad is not None:
                update = self._with_momentum(parameter, parameter.grad)
                for target, part in zip(parameter.split(parts), update.split(parts), strict=True):
                    by_shape.setdefault((part.shape[0], part.shape[1]), []).append((target, part))
        for (rows, columns), pairs in by_shape.items():
            self._apply(pairs, scale=_RMS * math.sqrt(max(rows, columns)))

    def _with_momentum(self, parameter: nn.Parameter, grad: Tensor) -> Tensor:
        """Nesterov momentum; the buffer is an average, so that its size does not depend on ``MOMENTUM``."""
        state = self.state.setdefault(parameter, {})
        if not state:
            state["momentum"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        momentum = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        return grad.lerp(momentum, MOMENTUM)

    def _apply(self, pairs: list[tuple[Tensor, Tensor]], *, scale: float) -> None:
        """Equal shapes go through Newton-Schulz together: few large operations instead of many small ones."""
        lr, decay = self._group["lr"], self._group["weight_decay"]
        directions = newton_schulz(torch.stack([update for _, update in pairs]))
        for (target, _), direction in zip(pairs, directions, strict=True):
            target.mul_(1 - lr * decay).add_(direction, alpha=-lr * scale)
