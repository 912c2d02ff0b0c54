"""Llama and its relatives: rotary positions, RMSNorm before each half of a block, SwiGLU, grouped-query attention.

No biases, but for queries, keys and values of Qwen2.
"""

from __future__ import annotations

from torch import Tensor, nn

from ondevice.model.attention import Attention, Place
from ondevice.model.decoder import Decoder
from ondevice.model.layers import Linear, RMSNorm, swiglu
from ondevice.model.rope import Rotation, rotation_tables
from ondevice.model.spared import cheap
from ondevice.run.recipe import ModelShape

__all__ = ["Llama"]


class _Mlp(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_up = Linear(shape.width, 2 * shape.hidden, bias=False)
        self.down = Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        y_BTC: Tensor = self.down(cheap(swiglu, self.gate_up(x_BTC)))
        return y_BTC


class _Block(nn.Module):
    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self.norm1 = RMSNorm(shape.width, eps=shape.norm_eps)
        self.attn = Attention(shape, layer, qkv_bias=shape.qkv_bias, out_bias=False)
        self.norm2 = RMSNorm(shape.width, eps=shape.norm_eps)
        self.mlp = _Mlp(shape)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x_BTC: Tensor, place: Place) -> Tensor:
        x_BTC = x_BTC + self.dropout(self.attn(cheap(self.norm1, x_BTC), place))
        return x_BTC + self.dropout(self.mlp(cheap(self.norm2, x_BTC)))


class Llama(Decoder):
    """The decoder of Llama."""

    def __init__(self, shape: ModelShape) -> None:
        blocks = [_Block(shape, layer) for layer in range(shape.layers)]
        super().__init__(shape, positions=False, blocks=blocks, norm=RMSNorm(shape.width, eps=shape.norm_eps))

    def _rotation(self, positions: slice | Tensor) -> Rotation:
        shape = self.shape
        cos, sin = rotation_tables(shape.context, shape.head_dim, shape.rope_theta, shape.rope_scaling)
        return cos[positions], sin[positions]
