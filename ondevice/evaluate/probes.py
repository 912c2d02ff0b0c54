"""Probes: how well a model expects a known continuation. Rank and probability of its first token, and
exp(mean NLL) over its tokens. Any backend will do."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ondevice.errors import CheckpointError, UsageError
from ondevice.infer.backend import Backend

__all__ = ["Probe", "measure_probe", "score_probe"]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """``rank`` counts from 1 (equal logits share the better rank); ``perplexity`` is exp(mean NLL), in tokens."""

    rank: int
    probability: float
    perplexity: float
    tokens: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def score_probe(logits_TV: np.ndarray, expected_ids: Sequence[int]) -> Probe:
    """``logits_TV`` are the model's before each expected token. Raises CheckpointError where they are not finite."""
    scores_TV = np.asarray(logits_TV, np.float64)
    if not np.isfinite(scores_TV).all():
        raise CheckpointError("The model's logits are not finite numbers; use an earlier checkpoint.")
    expected_T = np.asarray(expected_ids, np.int64)
    top_T1 = scores_TV.max(axis=1, keepdims=True)
    totals_T = top_T1[:, 0] + np.log(np.exp(scores_TV - top_T1).sum(axis=1))
    nll_T = totals_T - scores_TV[np.arange(len(expected_T)), expected_T]
    return Probe(
        rank=1 + int((scores_TV[0] > scores_TV[0, expected_T[0]]).sum()),
        probability=math.exp(-float(nll_T[0])),
        perplexity=math.exp(min(float(nll_T.mean()), 700.0)),
        tokens=len(expected_T),
    )


def measure_probe(backend: Backend, prompt_ids: Sequence[int], expected_ids: Sequence[int]) -> Probe:
    """Reads the prompt and the expected continuation at once; of a prompt too long for the context its last part.

    Raises UsageError where the prompt or the continuation is empty, or the continuation does not fit.
    """
    if not len(expected_ids) or not len(prompt_ids):
        raise UsageError("A probe needs a prompt and an expected continuation of at least one token each.")
    if len(expected_ids) > backend.context:
        raise UsageError(
            f"The expected continuation has {len(expected_ids)} tokens, the context only {backend.context}; shorten it."
        )
    ids = [*prompt_ids, *expected_ids][:-1][-backend.context :]
    logits_TV = backend.logits(np.array([ids], np.int64))[0]
    return score_probe(logits_TV[-len(expected_ids) :], expected_ids)
