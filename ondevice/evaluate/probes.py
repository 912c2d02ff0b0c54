"""Probes: how well a model expects a known continuation. Rank and probability of its first token, and
exp(mean NLL) over its tokens. Any backend will do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ondevice.errors import UsageError
from ondevice.infer.backend import Backend
from ondevice.infer.sampling import check_finite

__all__ = ["Probe", "measure_probes", "probe_summary", "score_probe"]


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
    check_finite(scores_TV)
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


def measure_probes(
    backend: Backend, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, batch: int = 8
) -> list[Probe]:
    """Reads each prompt with its expected continuation, of a prompt too long for the context its last part.

    Several are read at once, padded behind, where a causal model does not look. Raises UsageError where a prompt or a
    continuation is empty, or a continuation does not fit.
    """
    rows = [_row(backend, prompt_ids, expected_ids) for prompt_ids, expected_ids in pairs]
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    found: dict[int, Probe] = {}
    for first in range(0, len(order), batch):
        some = order[first : first + batch]
        ids_BT = np.zeros((len(some), max(len(rows[index]) for index in some)), np.int64)
        for place, index in enumerate(some):
            ids_BT[place, : len(rows[index])] = rows[index]
        logits_BTV = backend.logits(ids_BT)
        for place, index in enumerate(some):
            expected_ids = pairs[index][1]
            end = len(rows[index])
            found[index] = score_probe(logits_BTV[place, end - len(expected_ids) : end], expected_ids)
    return [found[index] for index in range(len(rows))]


def probe_summary(probes: Sequence[Probe]) -> dict[str, Any]:
    """Of one or more."""
    return {
        "n": len(probes),
        "median_rank": statistics.median(probe.rank for probe in probes),
        "mean_probability": statistics.fmean(probe.probability for probe in probes),
        "median_perplexity": statistics.median(probe.perplexity for probe in probes),
    }


def _row(backend: Backend, prompt_ids: Sequence[int], expected_ids: Sequence[int]) -> list[int]:
    if not len(expected_ids) or not len(prompt_ids):
        raise UsageError("A probe needs a prompt and an expected continuation of at least one token each.")
    if len(expected_ids) > backend.context:
        raise UsageError(
            f"The expected continuation has {len(expected_ids)} tokens, the context only {backend.context}; shorten it."
        )
    return [*prompt_ids, *expected_ids][:-1][-backend.context :]
