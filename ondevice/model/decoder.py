"""What both decoders share: embedding, a stack of blocks, a final norm, and a head that may be the embedding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ondevice.model.attention import Place, continuation_mask, ragged_mask
from ondevice.model.cache import KVCache
from ondevice.model.frozen import FrozenMatrix
from ondevice.model.frozen_layers import FrozenEmbedding, FrozenLinear
from ondevice.model.layers import Embedding, Linear
from ondevice.model.recompute import recomputed
from ondevice.model.rope import Rotation
from ondevice.model.vocabulary import Vocabulary
from ondevice.run.recipe import ModelShape

__all__ = ["Decoder", "Entering"]


@dataclass(frozen=True)
class Entering:
    """Hidden states ``[B, T, C]`` that come into the block of this number."""

    block: int
    x_BTC: Tensor  # noqa: N815


class Decoder(nn.Module):
    """A causal language model. Set ``activation_checkpointing`` to keep one activation a block and compute the rest
    again in backward; the gradients are the same to the bit. ``compiled``, where set, takes every block through its
    pass in training mode (``ondevice.train.compiler``). With a trimmed ``vocabulary`` what it is given and gives
    are rows, not ids: who feeds it translates."""

    def __init__(self, shape: ModelShape, *, positions: bool, blocks: Iterable[nn.Module], norm: nn.Module) -> None:
        super().__init__()
        self.shape = shape
        self.activation_checkpointing = False
        self.adapter_dropout = 0.0
        self.compiled: Callable[[nn.Module, Tensor, Place], Tensor] | None = None
        self.vocabulary: Vocabulary | None = None
        self.embed: Embedding | FrozenEmbedding = Embedding(shape.vocab_size, shape.width)
        self.position = Embedding(shape.context, shape.width) if positions else None
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.head: Linear | FrozenLinear | None = None
        if not shape.tied:
            self.head = Linear(shape.width, shape.vocab_size, bias=False)

    @property
    def draws(self) -> bool:
        """Whether training draws random numbers."""
        return self.shape.dropout > 0.0 or self.adapter_dropout > 0.0

    @property
    def head_weight(self) -> Tensor | FrozenMatrix:
        """``weight_VC`` of the output head."""
        return self.embed.weight if self.head is None else self.head.weight

    def logits(self, hidden: Tensor) -> Tensor:
        """``hidden [..., C]`` -> ``[..., V]``. For training use `linear_cross_entropy`, which never holds them all."""
        weight = self.head_weight
        return weight.product(hidden) if isinstance(weight, FrozenMatrix) else F.linear(hidden, weight.to(hidden.dtype))

    def forward(
        self,
        ids_BT: Tensor,
        *,
        cache: KVCache | None = None,
        start: int = 0,
        lead_B: Tensor | None = None,
        lengths: Sequence[int] | None = None,
        entering: Entering | None = None,
    ) -> Tensor:
        """Hidden states after the final norm, ``[B, T, C]``.

        With a cache, ``ids`` are the tokens at positions ``start ...``; their keys and values are stored, and the
        cache must hold those of every earlier position. The first ``lead_B`` columns of each row are padding: nobody
        looks at them, and positions count from after them. With ``lengths`` each row holds texts of these lengths side
        by side, each with positions of its own, none of which sees another. What is ``entering`` a block spares those
        below it. Raises ValueError for more tokens than fit.
        """
        place = self.place(ids_BT, cache, start, lead_B) if lengths is None else self.place_apart(ids_BT, lengths)
        first, x_BTC = (0, self.embedded(ids_BT, place)) if entering is None else (entering.block, entering.x_BTC)
        for block in islice(self.blocks, first, None):
            x_BTC = self._through(block, x_BTC, place)
        hidden_BTC: Tensor = self.norm(x_BTC)
        return hidden_BTC

    def place(
        self, ids_BT: Tensor, cache: KVCache | None = None, start: int = 0, lead_B: Tensor | None = None
    ) -> Place:
        """Where the tokens of a forward pass stand. Raises ValueError for more than fit."""
        B, T = ids_BT.shape
        if cache is None and start != 0:
            raise ValueError("tokens at a later position need the cache of those before")
        if cache is not None and cache.batch != B:
            raise ValueError(f"{B} sequences given to a cache of {cache.batch}")
        room = self.shape.context if cache is None else min(self.shape.context, cache.length)
        if T < 1 or start < 0 or start + T > room:
            raise ValueError(f"positions {start} to {start + T} are not within the {room} there is room for")
        at: slice | Tensor = slice(start, start + T) if lead_B is None else _positions(start, T, lead_B)
        mask = continuation_mask(start, T, ids_BT.device) if lead_B is None else ragged_mask(start, T, lead_B)
        return Place(start=start, positions=at, cache=cache, mask=mask, rotation=self._rotation(at))

    def place_apart(self, ids_BT: Tensor, lengths: Sequence[int]) -> Place:
        """Where texts stand that lie side by side. Raises ValueError where they do not fill the row or are too long."""
        if sum(lengths) != ids_BT.shape[1] or min(lengths) < 1 or max(lengths) > self.shape.context:
            raise ValueError(f"texts of {lengths} tokens do not fill {ids_BT.shape[1]}, or are beyond the context")
        at_T = torch.cat([torch.arange(length, device=ids_BT.device) for length in lengths])
        return Place(start=0, positions=at_T, rotation=self._rotation(at_T), lengths=tuple(lengths))

    def _rotation(self, positions: slice | Tensor) -> Rotation | None:
        """Rotary angles of positions (``[T]``, ``[B, T]`` where rows differ), for decoders that turn by them."""
        return None

    def embedded(self, ids_BT: Tensor, place: Place) -> Tensor:
        """What goes into the first block."""
        rows_BTC: Tensor = self.embed(ids_BT)
        return self.positioned(rows_BTC, place)

    def positioned(self, x_BTC: Tensor, place: Place) -> Tensor:
        """Rows of the embedding with their positions, and dropout."""
        if self.position is not None:
            at, table = place.positions, self.position.weight
            x_BTC = x_BTC + (table[at] if isinstance(at, slice) else F.embedding(at, table))
        return F.dropout(x_BTC, self.shape.dropout, self.training) if self.shape.dropout else x_BTC

    def _through(self, block: nn.Module, x_BTC: Tensor, place: Place) -> Tensor:
        again = self.activation_checkpointing and place.cache is None and torch.is_grad_enabled()
        compiled = self.compiled if self.training else None
        through = block if compiled is None else partial(compiled, block)
        if not again or not (x_BTC.requires_grad or any(p.requires_grad for p in block.parameters())):
            y_BTC: Tensor = through(x_BTC, place)
            return y_BTC
        # Restoring the random state costs time, and only dropout draws from it.
        return recomputed(lambda x_BTC: through(x_BTC, place), x_BTC, draws=self.training and self.draws)


def _positions(start: int, count: int, lead_B: Tensor) -> Tensor:
    """Position of each column, ``[B, count]``; padding counts as 0."""
    columns = torch.arange(start, start + count, device=lead_B.device)
    return (columns - lead_B[:, None]).clamp_(min=0)
