"""The Llama decoder as an ONNX graph: RMSNorm, rotary positions, grouped-query attention, silu-gated feed-forward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ondevice.export.graph import Graph
from ondevice.export.graph_parts import PORTABLE, Decoder
from ondevice.export.plan import FP32, Plan
from ondevice.run.recipe import ModelShape

__all__ = ["build_llama"]


def build_llama(shape: ModelShape, state: Mapping[str, Any], plan: Plan = FP32, *, form: str = PORTABLE) -> Graph:
    """The graph over ``state`` (names of ARCHITECTURE.md). Raises CheckpointError for missing or misshapen weights."""
    decoder = Decoder(shape, state, plan, form=form)
    rope = _Rope(decoder)
    x = decoder.embed()
    for layer in range(shape.layers):
        x = _block(decoder, rope, layer, x)
    return decoder.finish(_rms_norm(decoder, x, "norm"))


def rope_tables(shape: ModelShape) -> tuple[np.ndarray, np.ndarray]:
    """``cos_PD`` and ``sin_PD`` for every position, from the decoder itself so that both round alike.

    The first half of the sines is negated: the rotation of halves is then ``x * cos + concat(x2, x1) * sin``.
    """
    from ondevice.model.rope import rotation_tables  # imports torch

    cos_P1D, sin_P1D = rotation_tables(shape.context, shape.head_dim, shape.rope_theta, shape.rope_scaling)
    return cos_P1D.numpy()[:, 0], sin_P1D.numpy()[:, 0]


class _Rope:
    """Rotary positions; the rows of this call are gathered once for all layers."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._graph = g = decoder.graph
        self._half = half = decoder.shape.head_dim // 2
        if decoder.native or decoder.in_place:
            cos_PD, sin_PD = rope_tables(decoder.shape)
            self._cos, self._sin = g.weight("rope.cos", cos_PD[:, half:]), g.weight("rope.sin", sin_PD[:, half:])
            return
        self._cos, self._sin = (
            g.node("Unsqueeze", g.node("Gather", g.weight(f"rope.{name}", table), decoder.positions_BT), g.ints(1))
            for name, table in zip(("cos", "sin"), rope_tables(decoder.shape), strict=True)
        )

    @property
    def tables(self) -> tuple[str, str]:
        """Cosines and sines, half a head wide where the graph has an operator for the rotation."""
        return self._cos, self._sin

    def rotate(self, x_BHTD: str) -> str:
        g = self._graph
        if self._decoder.native:
            return g.node("RotaryEmbedding", x_BHTD, self._cos, self._sin, self._decoder.positions_BT)
        halves = g.split_node("Split", x_BHTD, g.ints(self._half, self._half), names=("x1", "x2"), axis=3)
        swapped = g.node("Concat", halves[1], halves[0], axis=3)
        return g.node("Add", g.node("Mul", x_BHTD, self._cos), g.node("Mul", swapped, self._sin))


def _block(decoder: Decoder, rope: _Rope, layer: int, x: str) -> str:
    g, shape = decoder.graph, decoder.shape
    at, width, inner = f"blocks.{layer}", shape.width, shape.heads * shape.head_dim
    heads, kv_heads = shape.heads, shape.kv_heads
    normed = _rms_norm(decoder, x, f"{at}.norm1")
    qkv = decoder.linear(normed, f"{at}.attn.qkv", (heads + 2 * kv_heads) * shape.head_dim, width, bias=shape.qkv_bias)
    if decoder.in_place:
        mixed = decoder.attend_packed(layer, qkv, rope=rope.tables)
    else:
        sizes = g.ints(heads + kv_heads, kv_heads)
        qk, v = g.split_node("Split", decoder.split_heads(qkv), sizes, names=("qk", "v"), axis=1)
        q, k = g.split_node("Split", rope.rotate(qk), g.ints(heads, kv_heads), names=("q", "k"), axis=1)
        mixed = decoder.attend(layer, q, k, v)
    x = g.node("Add", x, decoder.linear(mixed, f"{at}.attn.out", width, inner, bias=False))
    return g.node("Add", x, _feed_forward(decoder, _rms_norm(decoder, x, f"{at}.norm2"), f"{at}.mlp"))


def _feed_forward(decoder: Decoder, x: str, at: str) -> str:
    g, width, hidden = decoder.graph, decoder.shape.width, decoder.shape.hidden
    both = decoder.linear(x, f"{at}.gate_up", 2 * hidden, width, bias=False)
    gate, up = g.split_node("Split", both, g.ints(hidden, hidden), names=("gate", "up"), axis=1)
    gated = g.node("Mul", g.node("Mul", gate, g.node("Sigmoid", gate)), up)
    return decoder.linear(gated, f"{at}.down", width, hidden, bias=False)


def _rms_norm(decoder: Decoder, x: str, name: str) -> str:
    """``x / sqrt(mean(x^2) + eps) * weight``, in the form that onnxruntime fuses into one kernel."""
    g, width = decoder.graph, decoder.shape.width
    if decoder.native:
        weight = decoder.weight(f"{name}.weight", width)
        return g.node("RMSNormalization", x, weight, axis=-1, epsilon=decoder.shape.norm_eps, name=name)
    mean = g.node("ReduceMean", g.node("Pow", x, g.scalar(2.0)), axes=[-1], keepdims=1)
    scale = g.node("Sqrt", g.node("Add", mean, g.scalar(decoder.shape.norm_eps)))
    return g.node("Mul", g.node("Div", x, scale), decoder.weight(f"{name}.weight", width), name=name)
