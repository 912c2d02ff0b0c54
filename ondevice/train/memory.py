"""How much memory a training process will take: arithmetic over shape, fit and optimizer, no torch.

Counts what is alive at the peak of a step, and what the C library keeps beyond it. The constants are measured with
``tools/bench/memory.py``. Read by the plan, which prints it, and by the choice of size and fit.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass

from ondevice.model.counts import count_breakdown
from ondevice.run.recipe import Fit, ModelShape

__all__ = ["RUNTIME_MB", "MemoryEstimate", "estimate_memory"]

RUNTIME_MB = 250.0  # python, torch and its thread pools after a first step
_TOKENIZER_MB = 45.0  # the package of a learned tokenizer, its vocabulary, and the mapped chunks of a larger text
_BYTES_VOCABULARY = 300  # at most this many ids: no tokenizer package
_KEPT_BY_MALLOC = 0.15  # of the activations: glibc cannot give back what lies between living blocks
_MB = 2.0**20
_FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Megabytes (2^20 bytes) at the peak of a step, by what holds them. ``scratch_mb``: of the optimizer's arithmetic;
    ``allocator_mb``: freed, and not given back to the system."""

    runtime_mb: float
    weights_mb: float
    gradients_mb: float
    optimizer_mb: float
    activations_mb: float
    head_mb: float
    scratch_mb: float
    allocator_mb: float

    @property
    def total_mb(self) -> float:
        return float(sum(dataclasses.astuple(self)))


def estimate_memory(shape: ModelShape, fit: Fit, *, optimizer: str = "adamw") -> MemoryEstimate:
    """Peak memory of fp32 training with ``adamw``, which has the larger state, or ``muon``."""
    counts = count_breakdown(shape)
    matrices = counts.attention + counts.mlp if optimizer == "muon" else 0
    tokens = fit.micro_batch * shape.context
    block = _block_floats(shape)
    kept = shape.layers * shape.width + block if fit.activation_checkpointing else shape.layers * block
    activations = tokens * (kept + 2 * shape.width)
    again = 2 * tokens * block if fit.activation_checkpointing else 0  # blocks computed again lie in gaps of others
    chunk = min(fit.loss_chunk_tokens, tokens)
    return MemoryEstimate(
        runtime_mb=RUNTIME_MB + (_TOKENIZER_MB if shape.vocab_size > _BYTES_VOCABULARY else 0.0),
        weights_mb=counts.total * _FLOAT / _MB,
        gradients_mb=counts.total * _FLOAT / _MB,
        optimizer_mb=(2 * counts.total - matrices) * _FLOAT / _MB,
        activations_mb=activations * _FLOAT / _MB,
        head_mb=(chunk + shape.width) * shape.vocab_size * _FLOAT / _MB,
        scratch_mb=_newton_schulz_floats(shape) * _FLOAT / _MB if matrices else 0.0,
        allocator_mb=(_KEPT_BY_MALLOC * activations + again) * _FLOAT / _MB,
    )


def _block_floats(shape: ModelShape) -> int:
    """Numbers a block keeps for its backward pass, per token: inputs and outputs of both norms, the joint q, k and v,
    for Llama q and k after rotation, attention's output, and the feed-forward layer's inner values."""
    keys = shape.kv_heads * shape.head_dim
    heads = shape.width + 2 * keys
    if shape.arch == "llama":
        return 5 * shape.width + heads + shape.width + keys + 3 * shape.hidden
    return 5 * shape.width + heads + 2 * shape.hidden


def _newton_schulz_floats(shape: ModelShape) -> int:
    """Numbers that exist at once while Muon works on its largest stack of equal matrices: the stack, the iterate and
    the next one, and two products of the iterate with itself."""
    queries, keys, width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim, shape.width
    stacks = Counter({(queries, width): 1})
    stacks.update([(keys, width), (keys, width), (width, queries), (width, shape.hidden), (shape.hidden, width)])
    if shape.arch == "llama":
        stacks[shape.hidden, width] += 1
    return max(
        shape.layers * count * (3 * rows * columns + 2 * min(rows, columns) ** 2)
        for (rows, columns), count in stacks.items()
    )
