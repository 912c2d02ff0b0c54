"""Output head and cross-entropy in one operation that never holds the logits of more than one chunk of tokens.

Gradients are computed while the chunk's logits exist, in forward, so backward only scales them. Positions whose
target is IGNORE are dropped before the head: they cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ondevice.model.frozen import FrozenMatrix
from ondevice.model.products import has_one_dnn, round_rows, times_transposed

__all__ = ["IGNORE", "WeightGradient", "linear_cross_entropy"]

IGNORE = -100
_TILE = 4096  # vocabulary rows of a half-precision weight gradient computed at once


def linear_cross_entropy(
    hidden_NC: Tensor,
    weight_VC: Tensor | FrozenMatrix,
    targets_N: Tensor,
    *,
    chunk_tokens: int,
    gradient_scale: float = 1.0,
    weight_gradient: WeightGradient | None = None,
) -> Tensor:
    """The sum of nats of ``targets`` under ``softmax(hidden @ weight.T)``, a scalar fp32 tensor (fp64 for fp64).

    ``targets`` are int64, IGNORE to leave a position out. Gradients of hidden and weight are exact; only those
    wanted are computed, none under ``no_grad``. Under CPU autocast or with half-precision ``hidden`` the products
    are in that precision and the softmax in fp32. A frozen weight is unpacked tile by tile, twice for each chunk.
    Differentiable once, and backward runs once for each forward.
    ``gradient_scale`` (1 / tokens of the effective batch) multiplies the gradients, not the sum: inside a product it is
    free, afterwards a pass over the vocabulary. With ``weight_gradient`` the weight's gradient is added there at once,
    in forward, and backward has none.
    Raises ValueError for shapes that do not fit and IndexError for a target outside the vocabulary.

    ::

        loss = linear_cross_entropy(model(x).flatten(0, 1), model.head_weight, y.flatten(), chunk_tokens=512) / count
    """
    _check(hidden_NC, weight_VC, targets_N, chunk_tokens)
    dtype = _product_dtype(hidden_NC)
    arguments = (hidden_NC, weight_VC, targets_N, chunk_tokens, dtype)
    gradients = (gradient_scale, weight_gradient)
    learns = isinstance(weight_VC, Tensor) and weight_VC.requires_grad
    if torch.is_grad_enabled() and (hidden_NC.requires_grad or learns):
        loss: Tensor = _LinearCrossEntropy.apply(*arguments, *gradients)
        return loss
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        head = _Head(*arguments)
        return head.sum_of(head.loss(chunk) for chunk in head.chunks())


def _check(hidden_NC: Tensor, weight_VC: Tensor | FrozenMatrix, targets_N: Tensor, chunk_tokens: int) -> None:
    if hidden_NC.ndim != 2 or len(weight_VC.shape) != 2 or hidden_NC.shape[1] != weight_VC.shape[1]:
        raise ValueError(f"hidden {tuple(hidden_NC.shape)} and weight {tuple(weight_VC.shape)} do not multiply")
    if targets_N.dtype != torch.int64 or targets_N.shape != hidden_NC.shape[:1]:
        raise ValueError(f"{hidden_NC.shape[0]} int64 targets wanted, not {tuple(targets_N.shape)} {targets_N.dtype}")
    if chunk_tokens < 1:
        raise ValueError(f"chunk_tokens must be at least 1, not {chunk_tokens}")


def _product_dtype(hidden_NC: Tensor) -> torch.dtype:
    if hidden_NC.dtype == torch.float32 and torch.is_autocast_enabled("cpu"):
        return torch.get_autocast_dtype("cpu")
    return hidden_NC.dtype


class _Chunk:
    """Some kept tokens: which rows of hidden (a slice when none is left out), their states and targets.

    The last ones of the states may be there for their number alone: ``count`` of them are tokens.
    """

    def __init__(self, rows: slice | Tensor, hidden_nC: Tensor, targets_n: Tensor, count: int) -> None:
        self.rows = rows
        self.hidden = hidden_nC
        self.targets = targets_n[:, None]
        self.count = count


class _Head:
    """The chunks of one call and the buffers they share.

    ``product`` holds a matrix product [chunk, V]; ``scores`` its softmax in fp32, the same memory where the
    product is fp32 already. oneDNN brings memory of its own for each product.
    """

    def __init__(
        self,
        hidden_NC: Tensor,
        weight_VC: Tensor | FrozenMatrix,
        targets_N: Tensor,
        chunk: int,
        dtype: torch.dtype,
    ) -> None:
        self.hidden = hidden_NC
        self.weight = weight_VC.to(dtype) if isinstance(weight_VC, Tensor) else weight_VC
        self.weight_dtype = weight_VC.dtype
        self.vocabulary = weight_VC.shape[0]
        self.dtype = dtype
        self.exact = torch.float64 if dtype == torch.float64 else torch.float32
        kept = (targets_N != IGNORE).nonzero()[:, 0]
        self.rows = None if len(kept) == len(targets_N) else kept
        self.targets = targets_N if self.rows is None else targets_N[kept]
        self.count = len(self.targets)
        self.most = min(chunk, len(targets_N))
        self.chunk = max(1, min(chunk, self._rows(self.count)))
        self._check_targets()
        self.foreign = dtype == torch.float32 and isinstance(self.weight, Tensor) and has_one_dnn()
        self.product = torch.empty(0 if self.foreign else self.chunk, self.vocabulary, dtype=dtype)
        self.scores = self.product if dtype == self.exact else torch.empty_like(self.product, dtype=self.exact)

    def _check_targets(self) -> None:
        if not self.count:
            return
        low, high = (int(bound) for bound in self.targets.aminmax())
        if low < 0 or high >= self.vocabulary:
            wrong = low if low < 0 else high
            raise IndexError(f"target {wrong} is outside the vocabulary of {self.vocabulary}")

    def chunks(self) -> Iterator[_Chunk]:
        for first in range(0, self.count, self.chunk):
            part = slice(first, min(first + self.chunk, self.count))
            count = part.stop - first
            if self.rows is None:
                yield _Chunk(part, self.hidden[part].to(self.dtype), self.targets[part], count)
            else:
                rows = self.rows[part]
                taken = min(self.chunk, self._rows(count))
                states = self.hidden.index_select(0, _filled(rows, taken)).to(self.dtype)
                yield _Chunk(rows, states, _filled(self.targets[part], taken), count)

    def _rows(self, count: int) -> int:
        """Of a product for so many tokens, whose number changes from call to call where some are left out."""
        return count if self.rows is None else round_rows(count, self.most)

    def loss(self, chunk: _Chunk) -> Tensor:
        """Sum of the chunk's nats, fp64; leaves the probabilities in ``scores``."""
        if self.foreign and isinstance(self.weight, Tensor):
            self.product = self.scores = self.product.new_empty(0)  # the one before is freed first
            self.product = self.scores = times_transposed(chunk.hidden, self.weight)
        product, scores = self._buffers(chunk)
        if self.foreign:
            pass
        elif isinstance(self.weight, Tensor):
            torch.mm(chunk.hidden, self.weight.t(), out=product)
        else:
            self.weight.times(chunk.hidden, product)
        if scores is not product:
            scores.copy_(product)
        wanted = scores.gather(1, chunk.targets)[:, 0]
        top = scores.amax(dim=1)
        torch.softmax(scores, dim=1, out=scores)
        # The largest probability is exp(0) / sum, at least 1 / V, so its logarithm gives log(sum) without loss:
        # one fused kernel and two reads are half the time of logsumexp, subtract, exp.
        return (top - scores.amax(dim=1).log_() - wanted)[: chunk.count].sum(dtype=torch.float64)

    def gradient(self, chunk: _Chunk) -> Tensor:
        """d loss / d logits of the chunk whose probabilities are in ``scores``: softmax minus one-hot."""
        product, scores = self._buffers(chunk)
        scores.scatter_add_(1, chunk.targets, scores.new_full((len(scores), 1), -1.0))
        scores[chunk.count :].zero_()
        return product.copy_(scores) if scores is not product else product

    def sum_of(self, losses: Iterator[Tensor]) -> Tensor:
        """Added in fp64, so that the chunk size hardly shows; in place, or small tensors would lie behind each chunk's
        logits, and the next ones could not take their place."""
        total = torch.zeros((), dtype=torch.float64)
        for loss in losses:
            total += loss
            del loss
        return total.to(self.exact)

    def _buffers(self, chunk: _Chunk) -> tuple[Tensor, Tensor]:
        product = self.product[: len(chunk.targets)]
        return product, product if self.scores is self.product else self.scores[: len(chunk.targets)]


def _filled(rows_n: Tensor, count: int) -> Tensor:
    """The last one again until there are so many."""
    return torch.cat((rows_n, rows_n[-1:].expand(count - len(rows_n))))


class _HiddenGradient:
    """``[N, C]``, rows of ignored positions zero."""

    def __init__(self, head: _Head, scale: float) -> None:
        self.scale = scale
        make = torch.empty if head.rows is None else torch.zeros
        self.total = make(head.hidden.shape, dtype=head.hidden.dtype)
        self.weight = head.weight

    def add(self, chunk: _Chunk, gradient_nV: Tensor) -> None:
        if isinstance(chunk.rows, Tensor):
            product = self._product(gradient_nV)[: chunk.count]
            self.total.index_copy_(0, chunk.rows, product.to(self.total.dtype))
        elif self.total.dtype == gradient_nV.dtype and isinstance(self.weight, Tensor):
            self.total[chunk.rows].addmm_(gradient_nV, self.weight, beta=0, alpha=self.scale)
        else:
            self.total[chunk.rows] = self._product(gradient_nV)

    def _product(self, gradient_nV: Tensor) -> Tensor:
        if isinstance(self.weight, Tensor):
            # Memory is fresh, so beta 0: without a product of the whole to be scaled in another pass.
            out = gradient_nV.new_empty(len(gradient_nV), self.weight.shape[1])
            return out.addmm_(gradient_nV, self.weight, beta=0, alpha=self.scale)
        out = gradient_nV.new_empty(len(gradient_nV), self.weight.columns)
        return self.weight.back(gradient_nV, out).mul_(self.scale)


class WeightGradient:
    """The gradient of the head's weight ``[V, C]``, in one buffer of the loss's precision (fp32, fp64 for fp64).

    Kept from step to step it spares a new one each: to the system's clearing of its pages goes as much time as to half
    the product. Set ``fresh`` where what it holds no longer counts.
    """

    def __init__(self, size: tuple[int, ...], dtype: torch.dtype) -> None:
        self.total = torch.empty(size, dtype=dtype)
        self.fresh = True

    def add(self, gradient_nV: Tensor, hidden_nC: Tensor, scale: float) -> None:
        """Adds ``scale * gradient.T @ hidden``."""
        if gradient_nV.dtype == self.total.dtype:
            self.total.addmm_(gradient_nV.t(), hidden_nC, beta=0 if self.fresh else 1, alpha=scale)
        else:
            self._add_tiles(gradient_nV.t(), hidden_nC, scale)
        self.fresh = False

    def settle(self) -> None:
        """Makes it zero if nothing was added."""
        if self.fresh:
            self.total.zero_()
            self.fresh = False

    def _add_tiles(self, gradient_Vn: Tensor, hidden_nC: Tensor, scale: float) -> None:
        """Half-precision products cannot add into an fp32 buffer; tiles bound what lies between."""
        tile = hidden_nC.new_empty(min(_TILE, len(self.total)), hidden_nC.shape[1])
        for total, gradient in zip(self.total.split(len(tile)), gradient_Vn.split(len(tile)), strict=True):
            product = torch.mm(gradient, hidden_nC, out=tile[: len(total)])
            torch.mul(product, scale, out=total) if self.fresh else total.add_(product, alpha=scale)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NC: Tensor,
        weight_VC: Tensor | FrozenMatrix,
        targets_N: Tensor,
        chunk_tokens: int,
        dtype: torch.dtype,
        scale: float,
        given: WeightGradient | None,
    ) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            head = _Head(hidden_NC, weight_VC, targets_N, chunk_tokens, dtype)
            for_hidden = _HiddenGradient(head, scale) if ctx.needs_input_grad[0] else None
            for_weight = (given or WeightGradient(weight_VC.shape, head.exact)) if ctx.needs_input_grad[1] else None
            loss = head.sum_of(_pass(head, for_hidden, for_weight, scale))
        if for_weight is not None:
            for_weight.settle()
        ctx.gradients = (
            None if for_hidden is None else for_hidden.total,
            None if for_weight is None or given is not None else for_weight.total.to(head.weight_dtype),
        )
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True; once_differentiable would give a constant without a word
            raise RuntimeError("linear_cross_entropy cannot be differentiated twice")
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy gives its gradients once; compute the loss again")
        hidden, weight = ctx.gradients
        ctx.gradients = None  # the caller owns them now: a first weight gradient becomes .grad without a copy
        if grad.item() != 1.0:
            for gradient in (hidden, weight):
                if gradient is not None:
                    gradient.mul_(grad)
        return hidden, weight, None, None, None, None, None


def _pass(
    head: _Head, for_hidden: _HiddenGradient | None, for_weight: WeightGradient | None, scale: float
) -> Iterator[Tensor]:
    """The loss of each chunk, its gradients added before the next chunk takes the buffers."""
    for chunk in head.chunks():
        yield head.loss(chunk)
        gradient_nV = head.gradient(chunk)
        if for_hidden is not None:
            for_hidden.add(chunk, gradient_nV)
        if for_weight is not None:
            for_weight.add(gradient_nV, chunk.hidden, scale)
        del gradient_nV  # or the next product would find this one's memory still held
