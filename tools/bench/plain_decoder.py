"""A decoder as nanoGPT writes it, of plain torch modules: what the benchmark of the step compares with.

The same matrices as ours (queries, keys and values in one, gate and up in one), no hand-written gradients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ondevice.model.rope import rotation_tables
from ondevice.run.recipe import ModelShape

__all__ = ["PlainDecoder"]


class _Block(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gpt2, self.heads = shape.arch == "gpt2", shape.heads
        norm = nn.LayerNorm if self.gpt2 else nn.RMSNorm
        self.norm1, self.norm2 = (norm(shape.width, eps=shape.norm_eps) for _ in range(2))
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=self.gpt2)
        self.out = nn.Linear(shape.width, shape.width, bias=self.gpt2)
        self.up = nn.Linear(shape.width, (1 if self.gpt2 else 2) * shape.hidden, bias=self.gpt2)
        self.down = nn.Linear(shape.hidden, shape.width, bias=self.gpt2)

    def forward(self, x_BTC: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, C = x_BTC.shape
        q, k, v = (
            part.view(B, T, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm1(x_BTC)).split(C, dim=2)
        )
        if not self.gpt2:
            q, k = (part * cos + part.roll(part.shape[-1] // 2, -1) * sin for part in (q, k))
        y_BHTD = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTC = x_BTC + self.out(y_BHTD.transpose(1, 2).reshape(B, T, C))
        return x_BTC + self.down(self._activated(self.up(self.norm2(x_BTC))))

    def _activated(self, up: Tensor) -> Tensor:
        if self.gpt2:
            return F.gelu(up, approximate="tanh")
        gate, up = up.chunk(2, dim=-1)
        return F.silu(gate) * up


class PlainDecoder(nn.Module):
    """``ids_BT -> logits_BTV``; every head has keys of its own, the embedding is the head."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.embed = nn.Embedding(shape.vocab_size, shape.width)
        self.position = nn.Embedding(shape.context, shape.width) if shape.arch == "gpt2" else None
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        self.norm = (nn.LayerNorm if shape.arch == "gpt2" else nn.RMSNorm)(shape.width, eps=shape.norm_eps)
        self.tables = tuple(table[:, 0] for table in rotation_tables(shape.context, shape.head_dim, shape.rope_theta))
        self._initialise(math.sqrt(2 * shape.layers))

    def _initialise(self, depth: float) -> None:
        """nanoGPT's: what adds to the residual stream is smaller."""
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                last = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / depth if last else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, ids_BT: Tensor) -> Tensor:
        T = ids_BT.shape[1]
        x_BTC: Tensor = self.embed(ids_BT)
        if self.position is not None:
            x_BTC = x_BTC + self.position(torch.arange(T))
        for block in self.blocks:
            x_BTC = block(x_BTC, *(table[:T] for table in self.tables))
        return F.linear(self.norm(x_BTC), self.embed.weight)
