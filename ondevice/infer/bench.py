"""How fast a backend reads and writes here, and what memory that takes: measured with its own loop, token by token."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from ondevice.device.memory import peak_rss_mb
from ondevice.errors import UsageError
from ondevice.infer.backend import Backend

__all__ = ["Speed", "measure_speed"]


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Medians over the rounds. Rates in tokens a second; ``first_token_s`` from the prompt to the first new token;
    ``peak_rss_mb`` of the whole process in MiB, None where it cannot be read."""

    prompt_tokens: int
    new_tokens: int
    rounds: int
    prefill_tok_s: float
    decode_tok_s: float
    first_token_s: float
    peak_rss_mb: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_speed(backend: Backend, *, prompt_tokens: int, new_tokens: int, rounds: int = 3) -> Speed:
    """Greedy decoding after a prompt of arbitrary tokens, after one round that is not counted.

    Raises UsageError where both do not fit the context.
    """
    if not 1 <= prompt_tokens < prompt_tokens + new_tokens <= backend.context:
        raise UsageError(
            f"{prompt_tokens} tokens of prompt and {new_tokens} new ones do not fit the context of {backend.context}; "
            "choose fewer, and at least one of each."
        )
    ids_BT = np.random.default_rng(0).integers(0, backend.vocab_size, (1, prompt_tokens), dtype=np.int64)
    measured = [_round(backend, ids_BT, new_tokens) for _ in range(rounds + 1)][1:]
    first_s, decode_s = (median(each[place] for each in measured) for place in (0, 1))
    return Speed(
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        rounds=rounds,
        prefill_tok_s=round(prompt_tokens / first_s, 1),
        decode_tok_s=round((new_tokens - 1) / decode_s, 1) if new_tokens > 1 else 0.0,
        first_token_s=round(first_s, 4),
        peak_rss_mb=peak_rss_mb(),
    )


def _round(backend: Backend, ids_BT: np.ndarray, new_tokens: int) -> tuple[float, float]:
    """Seconds to the first new token, and for the others together."""
    began_s = time.perf_counter()
    backend.start(1)
    token = int(backend.step(ids_BT)[0].argmax())
    first_s = time.perf_counter()
    for _ in range(new_tokens - 1):
        token = int(backend.step(np.array([[token]], dtype=np.int64))[0].argmax())
    return first_s - began_s, time.perf_counter() - first_s
