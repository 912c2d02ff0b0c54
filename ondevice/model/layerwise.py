"""A whole effective batch through a decoder block by block, so that gradients come one block at a time.

Forward keeps what comes into each block; backward takes the blocks from the last to the first, all micro-batches of one
before the next, and gives its parameters to the caller, who may use and drop their gradients at once. No more than one
block's activations exist, but for those that were asked to be kept. The bits are those of an ordinary backward pass;
only a table that is embedding and head at once adds its parts in another order where there are several micro-batches.
Knows nothing of norms, clipping or optimizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ondevice.device.memory import give_back_freed_blocks
from ondevice.model.attention import Place
from ondevice.model.decoder import Decoder, Entering
from ondevice.model.layers import add_rows
from ondevice.model.loss import linear_cross_entropy
from ondevice.model.recompute import backward_from
from ondevice.model.spared import spared

__all__ = ["Gradients", "LayerwiseBatch"]


@dataclass(frozen=True)
class Gradients:
    """Parameters whose gradients are whole; ``comes_again``: `LayerwiseBatch.again` will compute them once more."""

    parameters: list[nn.Parameter]
    comes_again: bool = False


@dataclass
class _Piece:
    """One micro-batch: ids ``[B, T]``, targets ``[N]``, and how far it came, ``x [B, T, C]``. ``inputs``: what came
    into a block; ``graphs``: with its result, where that is kept; ``random``: the generator's state before it (-1:
    before the embedding), where it draws."""

    ids: Tensor
    targets: Tensor
    place: Place
    x: Tensor
    inputs: dict[int, Tensor] = field(default_factory=dict)
    graphs: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    random: dict[int, Tensor] = field(default_factory=dict)


class LayerwiseBatch:
    """One effective batch: ``add`` every micro-batch, then ``head``, then ``backward``, then maybe ``again``.

    ``kept_blocks`` from the last on keep their activations, the others are computed twice. ``repeated_blocks`` from the
    last on can be gone through ``again``. ``lower`` is the type of autocast, None for none.
    """

    def __init__(
        self,
        model: Decoder,
        *,
        kept_blocks: int,
        repeated_blocks: int,
        loss_chunk_tokens: int,
        lower: torch.dtype | None,
    ) -> None:
        self.model = model
        self._count = len(model.blocks)
        self._first_kept, self._first_repeated = self._count - kept_blocks, self._count - repeated_blocks
        self._chunk, self._lower = loss_chunk_tokens, lower
        self._pieces: list[_Piece] = []
        self._seeds: list[Tensor] = []
        learning = [number for number, block in enumerate(model.blocks) if _learning(block)]
        self._embeds = bool(_learning(model.embed, model.position))
        self._lowest = 0 if self._embeds else min(learning, default=self._count)

    def add(
        self,
        ids_BT: Tensor,
        targets_N: Tensor,
        lengths: Sequence[int] | None = None,
        entering: Entering | None = None,
    ) -> None:
        """Forward of one micro-batch, to the last block's output; ``lengths`` of texts that lie side by side in it.
        What is ``entering`` a block, at most the lowest that learns, spares those below it."""
        model = self.model
        place = model.place(ids_BT) if lengths is None else model.place_apart(ids_BT, lengths)
        with torch.no_grad(), self._autocast():
            before = self._random()
            x_BTC = model.embedded(ids_BT, place) if entering is None else entering.x_BTC
            piece = _Piece(ids_BT, targets_N, place, x_BTC)
            piece.random |= {} if before is None else {-1: before}
            for number, block in enumerate(model.blocks):
                if entering is None or number >= entering.block:
                    self._forward(piece, number, block)
        self._pieces.append(piece)

    def _forward(self, piece: _Piece, number: int, block: nn.Module) -> None:
        before = self._random()
        if before is not None:
            piece.random[number] = before
        x_BTC = piece.x
        if number >= self._first_kept and number >= self._lowest:
            x_BTC.requires_grad_(number > self._lowest or self._embeds)
            with torch.enable_grad(), spared():
                y_BTC = block(x_BTC, piece.place)
            piece.graphs[number], piece.x = (x_BTC, y_BTC), y_BTC.detach()
            give_back_freed_blocks()  # or what is not kept leaves gaps between what is, a quarter of it
        else:
            piece.x = block(x_BTC, piece.place)
        if number >= self._lowest and (number not in piece.graphs or number >= self._first_repeated):
            piece.inputs[number] = x_BTC.detach()

    def head(self, tokens: int) -> tuple[float, Iterator[Gradients]]:
        """Sum of nats of the whole batch; and the work that follows, which leaves gradients of the sum divided by
        ``tokens`` in ``.grad``. What learns in the embedding comes last."""
        model, sizes = self.model, [len(piece.targets) for piece in self._pieces]
        x_NC = torch.cat([piece.x.flatten(0, 1) for piece in self._pieces]).requires_grad_()
        targets_N = torch.cat([piece.targets for piece in self._pieces])
        for piece in self._pieces:
            piece.x = piece.x.new_empty(0)
        with torch.enable_grad(), self._autocast():
            loss_sum = linear_cross_entropy(
                model.norm(x_NC),
                model.head_weight,
                targets_N,
                chunk_tokens=self._chunk,
                gradient_scale=1 / max(1, tokens),
            )
        return loss_sum.item(), self._backward(x_NC, loss_sum, sizes)

    def _backward(self, x_NC: Tensor, loss: Tensor, sizes: list[int]) -> Iterator[Gradients]:
        loss.backward()
        del loss
        assert x_NC.grad is not None
        shapes = [(*piece.ids.shape, x_NC.shape[1]) for piece in self._pieces]
        self._seeds = [part.view(shape) for part, shape in zip(x_NC.grad.split(sizes), shapes, strict=True)]
        x_NC.grad = None
        # The head gives a table that is the embedding too half of its gradient: out of reach until it is whole.
        table = self.model.embed.weight
        half: Tensor | None = None
        if isinstance(table, nn.Parameter):
            half, table.grad = table.grad, None
        yield Gradients(_learning(self.model.norm, self.model.head))
        grads = list(self._seeds)
        if self._first_repeated >= self._count:
            self._seeds = []
        for number in reversed(range(self._lowest, self._count)):
            again = number >= self._first_repeated
            self._through(number, grads, keep=again)
            yield Gradients(_learning(self.model.blocks[number]), comes_again=again)
        if self._embeds:
            if isinstance(table, nn.Parameter):
                table.grad, half = half, None
            self._into_embedding(grads)
            yield Gradients(_learning(self.model.embed, self.model.position))

    def again(self) -> Iterator[Gradients]:
        """The gradients of the repeated blocks once more, of each block before its parameters may change."""
        grads, self._seeds = self._seeds, []
        for number in reversed(range(max(self._first_repeated, self._lowest), self._count)):
            self._through(number, grads, keep=False)
            yield Gradients(_learning(self.model.blocks[number]))

    def _through(self, number: int, grads: list[Tensor], *, keep: bool) -> None:
        """Backward of one block, every micro-batch in turn; ``grads`` at its output become those at its input."""
        for index, piece in enumerate(self._pieces):
            graph = piece.graphs.pop(number) if number in piece.graphs else self._computed_again(piece, number)
            x_BTC, y_BTC = graph
            if not keep:
                piece.inputs.pop(number, None)
            grad, grads[index] = grads[index], grads[index].new_empty(0)
            backward_from(y_BTC, grad)
            del graph, y_BTC, grad
            if x_BTC.grad is not None:
                grads[index] = x_BTC.grad

    def _computed_again(self, piece: _Piece, number: int) -> tuple[Tensor, Tensor]:
        x_BTC = piece.inputs[number].detach().requires_grad_(number > self._lowest or self._embeds)
        with torch.enable_grad(), self._autocast(), _Drawing(piece.random.get(number)):
            return x_BTC, self.model.blocks[number](x_BTC, piece.place)

    def _into_embedding(self, grads: list[Tensor]) -> None:
        table = self.model.embed.weight
        for piece, grad_BTC in zip(self._pieces, grads, strict=True):
            rows_BTC = torch.zeros_like(grad_BTC).requires_grad_()
            with torch.enable_grad(), self._autocast(), _Drawing(piece.random.get(-1)):
                y_BTC = self.model.positioned(rows_BTC, piece.place)
            backward_from(y_BTC, grad_BTC)
            if isinstance(table, Tensor) and table.requires_grad and rows_BTC.grad is not None:
                if table.grad is None:
                    table.grad = torch.zeros_like(table)
                add_rows(table.grad, piece.ids, rows_BTC.grad)
        grads.clear()

    def _random(self) -> Tensor | None:
        return torch.get_rng_state() if self.model.training and self.model.draws else None

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast("cpu", dtype=self._lower, enabled=self._lower is not None)


class _Drawing(AbstractContextManager[None]):
    """Random numbers are drawn as they were from this state on; then the generator is put back."""

    def __init__(self, state: Tensor | None) -> None:
        self._state, self._now = state, None if state is None else torch.get_rng_state()

    def __enter__(self) -> None:
        if self._state is not None:
            torch.set_rng_state(self._state)

    def __exit__(self, *_: object) -> None:
        if self._now is not None:
            torch.set_rng_state(self._now)


def _learning(*modules: nn.Module | None) -> list[nn.Parameter]:
    return [each for module in modules if module is not None for each in module.parameters() if each.requires_grad]
