"""What is alive at the worst moment of an ordinary step: arithmetic over shape and fit, no torch.

The logits of a chunk exist when every block holds what it keeps for backward; then the blocks give that back one after
the other, from the last on, and leave gradients. Those of earlier micro-batches of the step are there all the time.
"""

from __future__ import annotations

from dataclasses import dataclass

from ondevice.model.counts import count_learned
from ondevice.run.recipe import Fit, ModelShape
from ondevice.train.memory_layerwise import WIDENED_TABLES, BlockFloats, Moment

__all__ = ["worst_moment"]

_HALF = 0.5  # a bf16 number of an fp32 one
_TILE = 4096  # rows of the head's gradient that one bf16 product makes, widened to be added up (`model.loss`)
_EDGES = 3  # widths a token: the last block's output, the same after the final norm, and its gradient


def worst_moment(
    shape: ModelShape,
    fit: Fit,
    *,
    batch: int | None,
    top_layers: int | None = None,
    narrow: bool = False,
    lower: bool = False,
) -> Moment:
    """``batch``: sequences of a whole step (None: of several micro-batches); ``top_layers``: blocks that learn (None:
    all); ``narrow``: matrices and their gradients are bf16; ``lower``: products are in bf16, from copies of fp32
    matrices."""
    grads, held = _Gradients.of(shape, fit, batch, top_layers, narrow=narrow), _Held(shape, fit, BlockFloats.of(shape))
    tokens, layers = fit.micro_batch * shape.context, min(shape.layers, top_layers or shape.layers)
    logits = min(fit.loss_chunk_tokens, tokens) * shape.vocab_size
    widened = WIDENED_TABLES * grads.table / _HALF * narrow
    table, tile = shape.vocab_size * shape.width, min(_TILE, shape.vocab_size) * shape.width
    copies = (_HALF * (grads.blocks + table + logits + tile) + tile) * lower
    moments = [Moment(gradients=grads.before, activations=tokens * held.all(layers), head=logits + widened + copies)]
    for done in range(1, layers + 1):
        activations = tokens * held.one(layers - done)
        moments.append(Moment(gradients=grads.after(done / layers), activations=activations, head=0.0))
    last = Moment(gradients=grads.after(1.0) + grads.twice, activations=tokens * 2 * shape.width, head=0.0)
    return max((*moments, last), key=lambda moment: moment.total)


@dataclass(frozen=True, kw_only=True)
class _Gradients:
    """Numbers of 4 bytes: of the head's ``table``, which an fp32 one has in a buffer that stays, of all ``blocks``, of
    what is neither (``rest``); ``twice``: a second gradient of an embedding that is no head, to be added to the first;
    ``before``: what is there when the last micro-batch of the step begins."""

    table: float
    blocks: float
    rest: float
    twice: float
    before: float

    @classmethod
    def of(cls, shape: ModelShape, fit: Fit, batch: int | None, top_layers: int | None, *, narrow: bool) -> _Gradients:
        learned, number = count_learned(shape, top_layers), _HALF if narrow else 1.0
        table = shape.vocab_size * shape.width * number
        again = batch is None or batch > fit.micro_batch
        head = table if learned.embedding or learned.head else 0.0
        blocks = (learned.attention + learned.mlp) * number + learned.norm
        alone = bool(learned.embedding and learned.head)
        rest = learned.position + alone * table
        before = head + blocks + rest if again else head * (not narrow)
        return cls(table=head, blocks=blocks, rest=rest, twice=table * (again and alone), before=before)

    def after(self, share: float) -> float:
        """Of a micro-batch that has gone back through this share of the blocks."""
        return max(self.before, self.table + share * self.blocks + (self.rest if share == 1.0 else 0.0))


@dataclass(frozen=True)
class _Held:
    """Numbers a token that blocks hold for backward."""

    shape: ModelShape
    fit: Fit
    floats: BlockFloats

    def _each(self) -> int:
        return self.shape.width if self.fit.activation_checkpointing else self.floats.kept

    def all(self, layers: int) -> int:
        """When the head has its turn."""
        return layers * self._each() + _EDGES * self.shape.width

    def one(self, left: int) -> int:
        """While one block goes back and so many are left: its own are there in any case, and the gradient it had."""
        return left * self._each() + self.floats.kept + self.floats.inner + self.shape.width
