"""Muon for the matrices inside the blocks, AdamW for embeddings, head, norms and biases, behind one optimizer.

Muon (Jordan et al., 2024) replaces the momentum of a matrix by the nearest orthogonal one; `orthogonal.py` finds it.
All in fp32: torch's own hard-codes bfloat16, which phones emulate. Updates are scaled by
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
from ondevice.train.memory import MUON_STACK
from ondevice.train.orthogonal import gram, newton_schulz, orthogonalizers

__all__ = ["MuonAdamW", "NewtonSchulzMuonAdamW", "row_parts"]

MOMENTUM = 0.95
_RMS = 0.2

Pair = tuple[Tensor, Tensor]  # a matrix that learns and its momentum


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
        """Gradients of matrices are overwritten."""
        self._adamw.step()
        pairs: list[Pair] = []
        for parameter, parts in self._matrices:
            if parameter.grad is not None:
                update = self._with_momentum(parameter, parameter.grad)
                pairs += zip(parameter.split(parts), update.split(parts), strict=True)
        self._learn(pairs)

    def _with_momentum(self, parameter: nn.Parameter, grad: Tensor) -> Tensor:
        """Nesterov momentum, in the gradient's place; the buffer is an average, so that its size does not depend on
        ``MOMENTUM``."""
        state = self.state.setdefault(parameter, {})
        if not state:
            state["momentum"] = torch.zeros_like(parameter, memory_format=torch.contiguous_format)
        momentum = state["momentum"].lerp_(grad, 1 - MOMENTUM)
        return grad.lerp_(momentum, MOMENTUM)

    def _learn(self, pairs: list[Pair]) -> None:
        """Matrices whose smaller sides are equal go together: few large operations instead of many small ones."""
        by_side: dict[int, list[Pair]] = {}
        for pair in pairs:
            by_side.setdefault(min(pair[1].shape), []).append(pair)
        for side, group in by_side.items():
            together = max(1, MUON_STACK // side**2)
            for first in range(0, len(group), together):
                self._apply(group[first : first + together], side)

    def _apply(self, pairs: list[Pair], side: int) -> None:
        """Each new matrix comes out of its last product, decay and rate included."""
        lr, keep = self._group["lr"], 1 - self._group["lr"] * self._group["weight_decay"]
        grams = torch.empty(len(pairs), side, side)
        for (_, update), product in zip(pairs, grams, strict=True):
            gram(update, out=product)
        for (target, update), factor in zip(pairs, orthogonalizers(grams), strict=True):
            left, right = (factor, update) if update.shape[0] <= update.shape[1] else (update, factor)
            target.addmm_(left, right, beta=keep, alpha=-lr * _scale(update))


class NewtonSchulzMuonAdamW(MuonAdamW):
    """As runs go on that were begun by recipes before version 7."""

    def _learn(self, pairs: list[Pair]) -> None:
        by_shape: dict[torch.Size, list[Pair]] = {}
        for pair in pairs:
            by_shape.setdefault(pair[1].shape, []).append(pair)
        lr, decay = self._group["lr"], self._group["weight_decay"]
        for group in by_shape.values():
            directions = newton_schulz(torch.stack([update for _, update in group]))
            for (target, update), direction in zip(group, directions, strict=True):
                target.mul_(1 - lr * decay).add_(direction, alpha=-lr * _scale(update))


def _scale(matrix: Tensor) -> float:
    return _RMS * math.sqrt(max(matrix.shape))
