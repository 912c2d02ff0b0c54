"""How many parameters a shape has and how much arithmetic a token costs. Pure arithmetic; no torch.

The figures are those of the module `ondevice.model.build.build_model` makes, before any of it exists.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ondevice.run.recipe import ModelShape

__all__ = ["Counts", "count_breakdown", "count_learned", "count_parameters", "flops_per_token"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Parameters by part, summed over the layers. ``head`` is 0 when the embedding serves as head."""

    embedding: int
    position: int
    attention: int
    mlp: int
    norm: int
    head: int

    @property
    def total(self) -> int:
        """Every parameter once."""
        return sum(dataclasses.astuple(self))


def count_breakdown(shape: ModelShape) -> Counts:
    """Parameters by part."""
    gpt2 = shape.arch == "gpt2"
    table = shape.vocab_size * shape.width
    return Counts(
        embedding=table,
        position=shape.context * shape.width if gpt2 else 0,
        attention=shape.layers * (_attention_weights(shape) + _attention_biases(shape)),
        mlp=shape.layers * (_mlp_weights(shape) + (shape.hidden + shape.width if gpt2 else 0)),
        norm=(2 * shape.layers + 1) * shape.width * (2 if gpt2 else 1),
        head=0 if shape.tied else table,
    )


def count_parameters(shape: ModelShape, *, head_twice: bool = False) -> int:
    """Parameters of the model; ``head_twice`` counts a tied table as embedding and again as head, as some papers do."""
    again = shape.vocab_size * shape.width if head_twice and shape.tied else 0
    return count_breakdown(shape).total + again


def count_learned(shape: ModelShape, top_layers: int | None) -> Counts:
    """Parameters that learn, by part, where of the blocks only the last ``top_layers`` do (None: all of the model)."""
    if top_layers is None:
        return count_breakdown(shape)
    return dataclasses.replace(
        count_breakdown(dataclasses.replace(shape, layers=min(top_layers, shape.layers))), embedding=0, position=0
    )


def flops_per_token(shape: ModelShape, context: int) -> int:
    """Floating-point operations of forward and backward for one token of a sequence of ``context`` tokens.

    6 for each weight of a matrix product (2 forward, 4 backward; the head counts, tables looked up do not), and
    6 * layers * width * (context + 1) for attention: scores and values cost 4 * width a key forward, three times
    that with backward, and a causal token sees (context + 1) / 2 keys on average. Recomputation (activation
    checkpointing) and elementwise work are not counted.
    """
    matrices = shape.layers * (_attention_weights(shape) + _mlp_weights(shape)) + shape.vocab_size * shape.width
    return 6 * matrices + 6 * shape.layers * shape.width * (context + 1)


def _qkv_rows(shape: ModelShape) -> int:
    return (shape.heads + 2 * shape.kv_heads) * shape.head_dim


def _attention_weights(shape: ModelShape) -> int:
    return (_qkv_rows(shape) + shape.heads * shape.head_dim) * shape.width


def _attention_biases(shape: ModelShape) -> int:
    if shape.arch == "gpt2":
        return _qkv_rows(shape) + shape.width
    return _qkv_rows(shape) if shape.qkv_bias else 0


def _mlp_weights(shape: ModelShape) -> int:
    matrices = 2 if shape.arch == "gpt2" else 3  # gate and up are two
    return matrices * shape.width * shape.hidden
