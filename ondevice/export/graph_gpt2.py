"""The GPT-2 decoder as an ONNX graph: pre-norm LayerNorm, learned positions, biases everywhere, gelu (tanh form)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ondevice.export.graph import Graph
from ondevice.export.graph_parts import PORTABLE, Decoder
from ondevice.export.plan import FP32, Plan
from ondevice.run.recipe import ModelShape

__all__ = ["build_gpt2"]


def build_gpt2(shape: ModelShape, state: Mapping[str, Any], plan: Plan = FP32, *, form: str = PORTABLE) -> Graph:
    """The graph over ``state`` (names of ARCHITECTURE.md). Raises CheckpointError for missing or misshapen weights."""
    decoder = Decoder(shape, state, plan, form=form)
    x = _add_positions(decoder, decoder.embed())
    for layer in range(shape.layers):
        x = _block(decoder, layer, x)
    return decoder.finish(_layer_norm(decoder, x, "norm"))


def _add_positions(decoder: Decoder, x_NC: str) -> str:
    g, shape = decoder.graph, decoder.shape
    table = decoder.weight("position.weight", shape.context, shape.width)
    rows = g.node("Reshape", g.node("Gather", table, decoder.positions_BT, axis=0), g.ints(-1, shape.width))
    return g.node("Add", x_NC, rows)


def _block(decoder: Decoder, layer: int, x: str) -> str:
    g, shape = decoder.graph, decoder.shape
    at, width, heads = f"blocks.{layer}", shape.width, shape.heads
    normed = _layer_norm(decoder, x, f"{at}.norm1")
    qkv = decoder.linear(normed, f"{at}.attn.qkv", 3 * width, width, bias=True)
    if decoder.in_place:
        mixed = decoder.attend_packed(layer, qkv)
    else:
        sizes = g.ints(heads, heads, heads)
        q, k, v = g.split_node("Split", decoder.split_heads(qkv), sizes, names=("q", "k", "v"), axis=1)
        mixed = decoder.attend(layer, q, k, v)
    x = g.node("Add", x, decoder.linear(mixed, f"{at}.attn.out", width, width, bias=True))
    normed = _layer_norm(decoder, x, f"{at}.norm2")
    up = decoder.linear(normed, f"{at}.mlp.up", shape.hidden, width, bias=True)
    down = decoder.linear(_gelu(decoder, up), f"{at}.mlp.down", width, shape.hidden, bias=True)
    return g.node("Add", x, down)


def _layer_norm(decoder: Decoder, x: str, name: str) -> str:
    weight, bias = (decoder.weight(f"{name}.{part}", decoder.shape.width) for part in ("weight", "bias"))
    return decoder.graph.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=decoder.shape.norm_eps, name=name)


def _gelu(decoder: Decoder, x: str) -> str:
    """``x * 0.5 * (1 + tanh(sqrt(2/pi) * x * (1 + 0.044715 * x * x)))``, the form that onnxruntime fuses."""
    g = decoder.graph
    if decoder.native:
        return g.node("Gelu", x, approximate="tanh")
    cubic = g.node("Mul", x, g.node("Mul", x, g.scalar(0.044715)))
    inside = g.node("Mul", g.node("Add", cubic, g.scalar(1.0)), g.node("Mul", x, g.scalar(math.sqrt(2 / math.pi))))
    opened = g.node("Add", g.node("Tanh", inside), g.scalar(1.0))
    return g.node("Mul", g.node("Mul", x, g.scalar(0.5)), opened)
