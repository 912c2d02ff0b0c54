"""GPT-2: learned positions, LayerNorm before each half of a block, biases everywhere, gelu in its tanh form."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from ondevice.model.attention import Attention, Place
from ondevice.model.decoder import Decoder
from ondevice.model.layers import Linear
from ondevice.model.spared import cheap
from ondevice.run.recipe import ModelShape

__all__ = ["Gpt2"]


_gelu = partial(F.gelu, approximate="tanh")


class _Mlp(nn.Module):
    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.up = Linear(shape.width, shape.hidden)
        self.down = Linear(shape.hidden, shape.width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        y_BTC: Tensor = self.down(cheap(_gelu, self.up(x_BTC)))
        return y_BTC


class _Block(nn.Module):
    def __init__(self, shape: ModelShape, layer: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.attn = Attention(shape, layer, qkv_bias=True, out_bias=True)
        self.norm2 = nn.LayerNorm(shape.width, eps=shape.norm_eps)
        self.mlp = _Mlp(shape)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, x_BTC: Tensor, place: Place) -> Tensor:
        x_BTC = x_BTC + self.dropout(self.attn(cheap(self.norm1, x_BTC), place))
        return x_BTC + self.dropout(self.mlp(cheap(self.norm2, x_BTC)))


class Gpt2(Decoder):
    """The decoder of GPT-2, pre-LN."""

    def __init__(self, shape: ModelShape) -> None:
        blocks = [_Block(shape, layer) for layer in range(shape.layers)]
        super().__init__(shape, positions=True, blocks=blocks, norm=nn.LayerNorm(shape.width, eps=shape.norm_eps))
