"""Weights kept in bf16 while they learn: which of a decoder's parameters, and how they become so.

Matrices of blocks, the embedding and the head; norms, biases and positions, which are few, stay fp32. Knows no
optimizer: how updates are rounded is ``ondevice.train.adamw_bf16``'s.
"""

from __future__ import annotations

import torch
from torch import nn

from ondevice.model.decoder import Decoder
from ondevice.model.layers import Embedding, Linear

__all__ = ["is_narrow", "narrow"]


def is_narrow(optimizer_state: str) -> bool:
    """Whether the weights of a recipe's optimizer, by its name there, are bf16."""
    return "-bf16" in optimizer_state


@torch.no_grad()
def narrow(model: Decoder) -> None:
    """Rounds the matrices of a model to bf16, one at a time; the names and the model stay."""
    for module in model.modules():
        if isinstance(module, Linear | Embedding) and module is not model.position:
            weight = module.weight
            module.weight = nn.Parameter(weight.bfloat16(), requires_grad=weight.requires_grad)
