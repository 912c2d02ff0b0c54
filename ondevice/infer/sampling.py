"""Choosing the next token from logits: numpy in float64, so that equal logits give equal tokens on every backend.

The steps, their order and their edge cases are those of transformers' logits processors: repetition penalty,
temperature, top k, top p. Knows no model and no tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ondevice.errors import CheckpointError, UsageError

__all__ = ["Sampler", "Sampling", "check_finite", "warp"]

_STATE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are chosen; the defaults are those of ``[sample]`` in a config. Raises UsageError for bad values.

    ``temperature`` 0 always takes the likeliest token (the lowest id of equals); ``top_k`` 0 and ``top_p`` 1 turn
    their step off.
    """

    temperature: float = 0.8
    top_k: int = 50
    top_p: float = 0.95
    repetition_penalty: float = 1.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name, good, rule in (
            ("temperature", 0 <= self.temperature < float("inf"), "0 or more"),
            ("top_k", self.top_k >= 0, "0 or more"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < float("inf"), "above 0"),
            ("seed", self.seed >= 0, "0 or more"),
        ):
            if not good:
                raise UsageError(f"{name} = {getattr(self, name)}: must be {rule}.")


def check_finite(logits: np.ndarray) -> None:
    """Raises CheckpointError for logits ``[..., V]`` that are not finite, which means the weights are not; of a token
    that a trimmed vocabulary left out they are minus infinity."""
    if not np.isfinite(logits.max(axis=-1)).all():  # the maximum of anything with NaN is NaN
        raise CheckpointError("The model's logits are not finite numbers; use an earlier checkpoint.")


def warp(logits_V: np.ndarray, seen_ids: Sequence[int], settings: Sampling) -> np.ndarray:
    """Float64 scores after all steps; tokens that may not be chosen have -inf.

    Raises CheckpointError when the logits are not finite, which means the weights are not.
    """
    scores_V = np.array(logits_V, dtype=np.float64)
    check_finite(scores_V)
    if settings.repetition_penalty != 1.0:
        _penalise(scores_V, seen_ids, settings.repetition_penalty)
    if settings.temperature == 0.0:
        return scores_V
    scores_V /= settings.temperature
    if 0 < settings.top_k < len(scores_V):
        scores_V[scores_V < np.partition(scores_V, -settings.top_k)[-settings.top_k]] = -np.inf
    if settings.top_p < 1.0:
        _keep_top_p(scores_V, settings.top_p)
    return scores_V


def _penalise(scores_V: np.ndarray, seen_ids: Sequence[int], penalty: float) -> None:
    """Divides positive and multiplies negative scores of seen tokens, in place; each token once."""
    ids = np.unique(np.asarray(seen_ids, dtype=np.int64))
    seen = scores_V[ids]
    scores_V[ids] = np.where(seen < 0, seen * penalty, seen / penalty)


def _keep_top_p(scores_V: np.ndarray, top_p: float) -> None:
    """Drops, in place, the unlikeliest tokens that together have at most 1 - top_p; the likeliest always stays."""
    ids = np.flatnonzero(scores_V > -np.inf)
    ids = ids[np.argsort(scores_V[ids], kind="stable")]
    cumulative = np.cumsum(_softmax(scores_V[ids]))
    scores_V[ids[:-1][cumulative[:-1] <= 1 - top_p]] = -np.inf


def _softmax(scores: np.ndarray) -> np.ndarray:
    odds = np.exp(scores - scores.max())
    chances: np.ndarray = odds / odds.sum()
    return chances


class Sampler:
    """Draws tokens with its own generator (PCG64): one number a token, none when greedy.

    >>> sampler = Sampler(Sampling(seed=7))
    >>> token = sampler.next(logits_V, seen_ids=[5, 9])
    """

    def __init__(self, settings: Sampling) -> None:
        self.settings = settings
        self._random = np.random.Generator(np.random.PCG64(settings.seed))

    def next(self, logits_V: np.ndarray, seen_ids: Sequence[int]) -> int:
        """The next token; ``seen_ids`` are prompt and generated tokens. Raises CheckpointError as `warp` does."""
        scores_V = warp(logits_V, seen_ids, self.settings)
        if self.settings.temperature == 0.0:
            return int(scores_V.argmax())
        ids = np.flatnonzero(scores_V > -np.inf)
        cumulative = np.cumsum(_softmax(scores_V[ids]))
        drawn = np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right")
        return int(ids[min(drawn, len(ids) - 1)])

    def state_dict(self) -> dict[str, Any]:
        """The generator's position, as values that JSON can hold."""
        return {"v": _STATE_VERSION, "generator": self._random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken. Raises CheckpointError for a newer version."""
        if state.get("v") != _STATE_VERSION:
            raise CheckpointError(
                f"Sampler state version {state.get('v')}, this program reads {_STATE_VERSION}; update ondevice."
            )
        self._random.bit_generator.state = state["generator"]
