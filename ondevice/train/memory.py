"""How much memory a training process will take: arithmetic over shape and fit, no torch.

Counts what is alive at the peak of a step. Read by the plan, which prints it, and by the choice of size and fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from ondevice.model.counts import count_parameters
from ondevice.run.recipe import Fit, ModelShape

__all__ = ["RUNTIME_MB", "MemoryEstimate", "estimate_memory"]

RUNTIME_MB = 250.0  # python, torch and its thread pools at rest
_MB = 2.0**20
_FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Megabytes (2^20 bytes) at the peak of a step, by what holds them."""

    runtime_mb: float
    weights_mb: float
    gradients_mb: float
    optimizer_mb: float
    activations_mb: float
    head_mb: float

    @property
    def total_mb(self) -> float:
        return (
            self.runtime_mb
            + self.weights_mb
            + self.gradients_mb
            + self.optimizer_mb
            + self.activations_mb
            + self.head_mb
        )


def estimate_memory(shape: ModelShape, fit: Fit) -> MemoryEstimate:
    """Peak memory of fp32 training with AdamW."""
    parameters = count_parameters(shape) * _FLOAT / _MB
    tokens = fit.micro_batch * shape.context
    block = _block_floats(shape)
    kept = shape.layers * shape.width + block if fit.activation_checkpointing else shape.layers * block
    chunk = min(fit.loss_chunk_tokens, tokens)
    return MemoryEstimate(
        runtime_mb=RUNTIME_MB,
        weights_mb=parameters,
        gradients_mb=parameters,
        optimizer_mb=2 * parameters,
        activations_mb=tokens * (kept + 4 * shape.width) * _FLOAT / _MB,
        head_mb=(2 * chunk * shape.vocab_size + shape.vocab_size * shape.width) * _FLOAT / _MB,
    )


def _block_floats(shape: ModelShape) -> int:
    """Numbers a block keeps for its backward pass, per token: inputs of norms and linears, q, k, v before and after
    rotation, attention's output, and the feed-forward layer's inner values."""
    heads = shape.width + 2 * shape.kv_heads * shape.head_dim
    if shape.arch == "llama":
        return 4 * shape.width + 2 * heads + shape.width + 4 * shape.hidden
    return 4 * shape.width + heads + shape.width + 2 * shape.hidden
