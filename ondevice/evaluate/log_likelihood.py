"""How likely given continuations are under a model: nats of each, and whether it is what greedy decoding would write.

Through any backend. Long texts are cut into windows as lm-evaluation-harness cuts them: every token is predicted once,
the last window keeps as much context as fits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ondevice.errors import DataError
from ondevice.infer.backend import Backend
from ondevice.infer.sampling import check_finite

__all__ = ["Likelihood", "likelihoods", "rolling_windows"]

_LOGITS_MB = 64.0

Pair = tuple[Sequence[int], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Likelihood:
    """``nats`` is the sum of the log-probabilities of the tokens, 0 or below."""

    nats: float
    greedy: bool


def likelihoods(backend: Backend, pairs: Sequence[Pair]) -> list[Likelihood]:
    """Of each (context, continuation), in order. A context that is too long loses its beginning.

    Raises DataError for a continuation that is longer than the model's context or that nothing stands before,
    CheckpointError for a model whose logits are not finite.
    """
    rows = [_row(backend, number, *pair) for number, pair in enumerate(pairs, 1)]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
    found: dict[int, Likelihood] = {}
    while order:
        longest = len(rows[order[-1]][0])
        size = max(1, int(_LOGITS_MB * 2**20 / (4 * max(longest, 1) * backend.vocab_size)))
        group, order = order[-size:], order[:-size]
        found.update(zip(group, _group(backend, [rows[index] for index in group]), strict=True))
    return [found[index] for index in range(len(rows))]


def _row(backend: Backend, number: int, context: Sequence[int], continuation: Sequence[int]) -> tuple[np.ndarray, int]:
    """What is read and predicted, one token more than the context holds at most; and how many of them count."""
    count = len(continuation)
    if count > backend.context:
        raise DataError(
            f"request {number}: its continuation has {count:,} tokens, more than the model's context of "
            f"{backend.context:,}; ask for less text at once."
        )
    if count and not len(context):
        raise DataError(f"request {number}: nothing stands before its continuation; begin with end-of-text.")
    ids = np.array([*context, *continuation], np.int64)[-(backend.context + 1) :]
    if len(ids) and not 0 <= ids.min() <= ids.max() < backend.vocab_size:
        raise DataError(f"request {number}: has ids that the model does not; its tokenizer is another one.")
    return ids, count


def _group(backend: Backend, rows: list[tuple[np.ndarray, int]]) -> Iterator[Likelihood]:
    longest = max(len(ids) for ids, _ in rows) - 1
    if longest < 1:
        yield from (Likelihood(nats=0.0, greedy=True) for _ in rows)
        return
    ids_BT = np.zeros((len(rows), longest), np.int64)  # what stands after a row's end changes nothing before it
    for row, (ids, _) in enumerate(rows):
        ids_BT[row, : max(len(ids) - 1, 0)] = ids[:-1]
    for logits_TV, (ids, count) in zip(backend.logits(ids_BT), rows, strict=True):
        end = len(ids) - 1
        yield _score(logits_TV[end - count : end].astype(np.float64), ids[len(ids) - count :])


def _score(logits_NV: np.ndarray, targets_N: np.ndarray) -> Likelihood:
    check_finite(logits_NV)
    top_N1 = logits_NV.max(axis=1, keepdims=True)
    totals_N = top_N1[:, 0] + np.log(np.exp(logits_NV - top_N1).sum(axis=1))
    nats = logits_NV[np.arange(len(targets_N)), targets_N] - totals_N
    return Likelihood(nats=float(nats.sum()), greedy=bool((logits_NV.argmax(axis=1) == targets_N).all()))


def rolling_windows(ids: Sequence[int], *, prefix: int, context: int) -> Iterator[tuple[list[int], list[int]]]:
    """(context, continuation) pairs that predict every token of a text once, the first after ``prefix``.

    >>> list(rolling_windows([0, 1, 2, 3, 4], prefix=9, context=3))
    [([9], [0, 1, 2]), ([1, 2], [3, 4])]
    """
    whole = [prefix, *ids]
    for start in range(0, len(ids), context):
        end = min(start + context, len(ids))
        first = max(0, end - context)  # of `whole`, which is one ahead: the window predicts up to `end`
        yield whole[first : start + 1], whole[start + 1 : end + 1]
