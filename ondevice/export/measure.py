"""What an exported model is worth: its loss on real text beside the model's own, and how fast it decodes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ondevice.export.verify import LogitsFn
from ondevice.infer.onnx_session import OnnxSession
from ondevice.run.recipe import ModelShape

__all__ = ["Perplexity", "decode_rate", "session_logits", "text_tokens", "token_losses"]

_ROWS = 64
_WORK = 1e11  # parameters x tokens: the text takes seconds, not minutes
_RATE_S = 1.0
_MOST_STEPS = 64


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Perplexity of the model itself and of the export over the same tokens; ``change`` is its relative growth, and
    ``change_stderr`` how much another text of this length would differ."""

    before: float
    after: float
    change: float
    change_stderr: float
    tokens: int

    @classmethod
    def of(cls, before_N: np.ndarray, after_N: np.ndarray) -> Perplexity:
        """From the losses of the same tokens, in nats."""
        growth = after_N - before_N
        change = float(np.expm1(growth.mean()))
        spread = float(growth.std(ddof=1) / np.sqrt(len(growth))) if len(growth) > 1 else 0.0
        return cls(
            before=float(np.exp(before_N.mean())),
            after=float(np.exp(after_N.mean())),
            change=change,
            change_stderr=(1 + change) * spread,
            tokens=len(growth),
        )

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def text_tokens(parameters: int) -> int:
    """How much text is read for a comparison: 8,192 tokens, fewer for a large model."""
    return min(8192, max(512, int(_WORK / parameters)))


def token_losses(logits: LogitsFn, windows: Sequence[np.ndarray]) -> np.ndarray:
    """Nats of every token of the windows but their first, float64."""
    return np.concatenate([_losses(logits(ids[None, :-1])[0], ids[1:]) for ids in windows])


def _losses(logits_TV: np.ndarray, wanted_T: np.ndarray) -> np.ndarray:
    """A few rows at a time: with a large vocabulary they are the largest arrays of an export."""
    out = np.empty(len(wanted_T))
    for start in range(0, len(wanted_T), _ROWS):
        rows, ids = logits_TV[start : start + _ROWS], wanted_T[start : start + _ROWS]
        highest = rows.max(axis=1)
        sums = np.exp(rows - highest[:, None]).sum(axis=1, dtype=np.float64)
        out[start : start + _ROWS] = np.log(sums) + highest - rows[np.arange(len(ids)), ids]
    return out


def session_logits(session: OnnxSession) -> LogitsFn:
    """The logits of a session from an empty cache."""

    def logits(ids_BT: np.ndarray) -> np.ndarray:
        session.start(len(ids_BT), capacity=ids_BT.shape[1])
        return session.run(ids_BT)

    return logits


def decode_rate(session: OnnxSession, shape: ModelShape, *, seconds: float = _RATE_S) -> float:
    """Tokens a second of greedy decoding after a short prompt, for about so long."""
    prompt = min(8, shape.context)
    steps = min(_MOST_STEPS, shape.context - prompt)
    session.start(1, capacity=prompt + steps)
    token = session.run(np.zeros((1, prompt), dtype=np.int64))[:, -1:].argmax(-1)
    began, done = time.perf_counter(), 0
    while done < steps and time.perf_counter() - began < seconds:
        token = session.run(token)[:, -1:].argmax(-1)
        done += 1
    return done / (time.perf_counter() - began) if done else 0.0
