"""What is alive at the worst moment of a layerwise step: arithmetic over shape and fit, no torch.

The head comes first, when the activations of every kept block exist and no gradient but its own; then each block frees
its activations and leaves gradients, which are held where clipping waits for the norm of all.
"""

from __future__ import annotations

from dataclasses import dataclass

from ondevice.model.counts import count_learned
from ondevice.run.recipe import Fit, ModelShape

__all__ = ["WIDENED_TABLES", "Moment", "worst_moment"]

WIDENED_TABLES = 2.5  # of the head, as fp32: a bf16 one, its gradient before it is rounded, and after
_AGAIN = 1.5  # of a block's activations: what backward makes of them lies beside


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
    block_floats: float,
    top_layers: int | None = None,
    narrow: bool = False,
) -> Moment:
    """``batch``: sequences of a whole step; ``waits``: gradients are held until the norm of all is known;
    ``block_floats``: what a block keeps for backward, a token; ``top_layers``: blocks that learn (None: all);
    ``narrow``: weights and gradients are bf16."""
    learned = count_learned(shape, top_layers)
    layers = min(shape.layers, top_layers or shape.layers)
    table = shape.vocab_size * shape.width if learned.embedding or learned.head else 0
    tokens, cut = batch * shape.context, min(batch, fit.micro_batch) * shape.context
    kept, repeated = min(fit.kept_blocks, layers), min(fit.repeated_blocks, layers) if waits else 0
    block = (learned.attention + learned.mlp) / layers + 2 * shape.width
    edge = 3 * tokens * shape.width  # gradients at a block's output, kept for a repetition, and at its input
    first = Moment(
        gradients=table,
        activations=tokens * ((layers - kept) * shape.width + min(kept, repeated) * shape.width + kept * block_floats)
        + edge,
        head=min(fit.loss_chunk_tokens, tokens) * shape.vocab_size + (WIDENED_TABLES - 1) * table * narrow,
    )
    moments = [first]
    for done in range(layers):  # of the blocks, from the last on, when the next is gone through
        held = max(0, done - repeated) if waits else 0
        graphs = max(0, kept - done)
        inputs = max(0, layers - max(done, kept)) + (min(done, repeated) if waits else 0)
        again = _AGAIN * cut * block_floats if graphs == 0 else (_AGAIN - 1) * cut * block_floats
        moments.append(
            Moment(
                gradients=(held * block + block + table) * (0.5 if narrow else 1.0),
                activations=tokens * (graphs * block_floats + inputs * shape.width) + again + edge,
                head=0.0,
            )
        )
    return max(moments, key=lambda moment: moment.total)
