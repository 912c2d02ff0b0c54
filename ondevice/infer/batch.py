"""Many prompts at once: the same tokens as one by one, several times as fast.

Prompts of like length are read together, padded on the left; rows that end leave the batch. A row whose window is
full waits for the next round and goes on there with the last half of its window, exactly as `generate` does. Each
prompt has its own sampler with the same seed, so its text does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from ondevice.errors import UsageError
from ondevice.infer.backend import BatchBackend
from ondevice.infer.generate import fit_prompt
from ondevice.infer.sampling import Sampler, Sampling, check_finite

__all__ = ["Written", "generate_batch"]

_COMPACT = 0.75  # share of rows still at work below which the batch is made smaller


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written after one prompt; ``finish`` is ``"stop"`` or ``"length"``, ``note`` as in `Prompt`."""

    ids: tuple[int, ...]
    finish: str
    note: str = ""


@dataclass
class _Job:
    place: int
    window: list[int]
    history: list[int]
    sampler: Sampler
    note: str
    ids: list[int] = field(default_factory=list)
    finish: str = ""
    held: int = 0  # tokens in the cache


@dataclass(frozen=True, kw_only=True)
class _Rules:
    stop_ids: frozenset[int]
    max_new_tokens: int
    vocab_size: int
    settings: Sampling
    ends: Callable[[Sequence[int]], bool] | None


def generate_batch(
    backend: BatchBackend,
    prompts: Sequence[Sequence[int]],
    *,
    settings: Sampling,
    stop_ids: Collection[int] = (),
    max_new_tokens: int,
    eot_id: int | None = None,
    vocab_size: int | None = None,
    batch: int = 32,
    pause: Callable[[], None] = lambda: None,
    ends: Callable[[Sequence[int]], bool] | None = None,
) -> list[Written]:
    """New tokens after each prompt, in the order of the prompts. ``pause`` is called after each token of a batch, so
    that the caller may rest; ``ends`` with the new tokens of a prompt says whether they are enough. Raises as
    `generate`."""
    if max_new_tokens < 0 or batch < 1:
        raise UsageError(f"max_new_tokens = {max_new_tokens}, batch = {batch}: must be at least 0 and 1.")
    vocabulary = min(vocab_size or backend.vocab_size, backend.vocab_size)
    rules = _Rules(
        stop_ids=frozenset(stop_ids),
        max_new_tokens=max_new_tokens,
        vocab_size=vocabulary,
        settings=settings,
        ends=ends,
    )
    jobs = []
    for place, ids in enumerate(prompts):
        prompt = fit_prompt(
            ids, context=backend.context, vocab_size=vocabulary, max_new_tokens=max_new_tokens, eot_id=eot_id
        )
        jobs.append(_Job(place, list(prompt.ids), list(prompt.ids), Sampler(settings), prompt.note))
    _write_all(backend, jobs, rules, batch, pause)
    return [Written(ids=tuple(job.ids), finish=job.finish, note=job.note) for job in jobs]


def _write_all(backend: BatchBackend, jobs: list[_Job], rules: _Rules, batch: int, pause: Callable[[], None]) -> None:
    waiting = list(jobs) if rules.max_new_tokens else []
    for job in jobs:
        job.finish = "" if rules.max_new_tokens else "length"
    while waiting:
        waiting.sort(key=lambda job: (len(job.window), job.place))
        group, waiting = waiting[:batch], waiting[batch:]
        _write(backend, group, rules, pause)
        waiting += [job for job in group if not job.finish]


def _write(backend: BatchBackend, group: list[_Job], rules: _Rules, pause: Callable[[], None]) -> None:
    """Goes on with a group until every row has ended or one column more would not fit; leaves windows to read."""
    rows: list[_Job | None] = list(group)
    for job in group:
        job.held = len(job.window)
    columns = max(job.held for job in group)
    left = max(rules.max_new_tokens - len(job.ids) for job in group)
    logits_BV = backend.read([job.window for job in group], room=left)
    while True:
        _take(logits_BV, rows, rules)
        pause()
        rows = [None if job is None or job.finish or job.held == backend.context else job for job in rows]
        if columns == backend.context or not any(rows):
            break
        rows = _compacted(backend, rows)
        last = [[0 if job is None else job.history[-1]] for job in rows]
        logits_BV = backend.step(np.array(last, np.int64))
        columns += 1
        for still in filter(None, rows):
            still.held += 1
    for job in group:
        full = job.held == backend.context
        job.window = job.history[-(max(backend.context // 2, 1) if full else job.held + 1) :]


def _compacted(backend: BatchBackend, rows: list[_Job | None]) -> list[_Job | None]:
    alive = [row for row, job in enumerate(rows) if job is not None]
    if len(alive) > _COMPACT * len(rows):
        return rows
    backend.keep(alive)
    return [rows[row] for row in alive]


def _take(logits_BV: np.ndarray, rows: list[_Job | None], rules: _Rules) -> None:
    """Gives every row its next token, or ends it."""
    for job, token in zip(rows, _choose(logits_BV[:, : rules.vocab_size], rows, rules.settings), strict=True):
        if job is None:
            continue
        if token in rules.stop_ids:
            job.finish = "stop"
            continue
        job.history.append(token)
        job.ids.append(token)
        if rules.ends is not None and rules.ends(job.ids):
            job.finish = "stop"
        elif len(job.ids) == rules.max_new_tokens:
            job.finish = "length"


def _choose(logits_BV: np.ndarray, rows: list[_Job | None], settings: Sampling) -> list[int]:
    if settings.temperature == 0.0 and settings.repetition_penalty == 1.0:
        tokens_B = logits_BV.argmax(axis=1)
        check_finite(logits_BV[np.arange(len(rows)), tokens_B][:, None])  # of anything with NaN, it is the place of NaN
        return [int(token) for token in tokens_B]
    return [
        0 if job is None else job.sampler.next(logits_V, job.history)
        for job, logits_V in zip(rows, logits_BV, strict=True)
    ]
