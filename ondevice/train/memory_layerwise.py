"""What is alive at the worst moment of a layerwise step: arithmetic over shape and fit, no torch.

The head comes first, when the activations of every kept block exist and no gradient but its own; then each block frees
its activations and leaves gradients, which are held where clipping waits for the norm of all.
"""

from __future__ import annotations

from dataclasses import dataclass

from ondevice.model.counts import count_learned
from ondevice.run.recipe import Fit, ModelShape

__all__ = ["WIDENED_TABLES", "BlockFloats", "Moment", "worst_moment"]

WIDENED_TABLES = 2.5  # of the head, as fp32: a bf16 one, its gradient before it is rounded, and after


@dataclass(frozen=True, kw_only=True)
class BlockFloats:
    """Numbers of a block, a token: what it ``kept`` for its backward pass, what is left of that where the cheap part
    is ``spared`` (`ondevice.model.spared`), and what backward makes beside it at its dearest (``inner``): in the
    feed-forward layer the gradients of the activation and of what went into it, less the activation itself, and for
    Llama silu again."""

    kept: int
    spared: int
    inner: int

    @classmethod
    def of(cls, shape: ModelShape) -> BlockFloats:
        """Inputs and outputs of both norms, the joint q, k and v, for Llama q and k after rotation, attention's output,
        the feed-forward layer's inner values and what the activation makes of them."""
        keys = shape.kv_heads * shape.head_dim
        llama = shape.arch == "llama"
        spared = 3 * shape.width + (shape.width + 2 * keys) + llama * (shape.width + keys) + (1 + llama) * shape.hidden
        return cls(
            kept=spared + 2 * shape.width + shape.hidden, spared=spared, inner=(3 if llama else 1) * shape.hidden
        )


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Numbers of 4 bytes."""

    gradients: float
    activations: float
    head: float

    @property
    def total(self) -> float:
        return self.gradients + self.activations + self.head


def worst_moment(
    shape: ModelShape,
    fit: Fit,
    *,
    batch: int,
    waits: bool,
    floats: BlockFloats,
    top_layers: int | None = None,
    narrow: bool = False,
) -> Moment:
    """``batch``: sequences of a whole step; ``waits``: gradients are held until the norm of all is known; ``floats``:
    of a block; ``top_layers``: blocks that learn (None: all); ``narrow``: weights and gradients are bf16."""
    learned = count_learned(shape, top_layers)
    layers = min(shape.layers, top_layers or shape.layers)
    table = shape.vocab_size * shape.width if learned.embedding or learned.head else 0
    tokens, cut = batch * shape.context, min(batch, fit.micro_batch) * shape.context
    kept, repeated = min(fit.kept_blocks, layers), min(fit.repeated_blocks, layers) if waits else 0
    block = (learned.attention + learned.mlp) / layers + 2 * shape.width
    edge = 3 * tokens * shape.width  # gradients at a block's output, kept for a repetition, and at its input
    first = Moment(
        gradients=table,
        activations=tokens * ((layers - kept) * shape.width + min(kept, repeated) * shape.width + kept * floats.spared)
        + edge,
        head=min(fit.loss_chunk_tokens, tokens) * shape.vocab_size + (WIDENED_TABLES - 1) * table * narrow,
    )
    moments = [first]
    for done in range(layers):  # of the blocks, from the last on, when the next is gone through
        held = max(0, done - repeated) if waits else 0
        graphs = max(0, kept - done)
        inputs = max(0, layers - max(done, kept)) + (min(done, repeated) if waits else 0)
        again = cut * (floats.kept + floats.inner if graphs == 0 else floats.inner + shape.hidden)
        moments.append(
            Moment(
                gradients=(held * block + block + table) * (0.5 if narrow else 1.0),
                activations=tokens * (graphs * floats.spared + inputs * shape.width) + again + edge,
                head=0.0,
            )
        )
    return max(moments, key=lambda moment: moment.total)
