"""Token after token from any backend, with a window that slides when the context is full.

Knows no text; ``ondevice.infer.text`` adds the tokenizer. Decoding reads each new token once; when the cache is full,
the last half of the context is read again and decoding goes on, so a text of any length costs two reads a token.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ondevice.errors import UsageError
from ondevice.infer.backend import Backend
from ondevice.infer.sampling import Sampler, Sampling

__all__ = ["Generation", "Prompt", "fit_prompt", "generate"]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The ids that are read, and a sentence for a person where they are not the ids that were given."""

    ids: tuple[int, ...]
    note: str = ""


def fit_prompt(
    prompt_ids: Sequence[int], *, context: int, vocab_size: int, max_new_tokens: int, eot_id: int | None
) -> Prompt:
    """What of a prompt is read: all of it up to the context, else its last part.

    The last part leaves room for the new tokens, down to half of the context. An empty prompt becomes the
    end-of-text token, after which a new document begins. Raises UsageError for an empty prompt without ``eot_id`` and
    for ids outside the vocabulary.
    """
    if not len(prompt_ids):
        if eot_id is None:
            raise UsageError("The prompt is empty; give at least one token.")
        return Prompt(ids=(eot_id,))
    ids = tuple(int(each) for each in prompt_ids)
    if min(ids) < 0 or max(ids) >= vocab_size:
        wrong = next(each for each in ids if not 0 <= each < vocab_size)
        raise UsageError(
            f"Token {wrong} of the prompt is outside the model's vocabulary of {vocab_size}; "
            "use the tokenizer the model was trained with."
        )
    if len(ids) <= context:
        return Prompt(ids=ids)
    kept = max(context - max_new_tokens, context // 2, 1)
    note = f"The prompt has {len(ids)} tokens, the context {context}; only its last {kept} tokens were read."
    return Prompt(ids=ids[-kept:], note=note)


def generate(
    backend: Backend,
    prompt_ids: Sequence[int],
    *,
    settings: Sampling,
    stop_ids: Collection[int] = (),
    max_new_tokens: int,
    eot_id: int | None = None,
    vocab_size: int | None = None,
    sampler: Sampler | None = None,
) -> Generation:
    """New tokens after a prompt, one by one; a stop token ends them and is not given.

    ``eot_id`` begins an empty prompt. ``vocab_size`` limits the choice to the first ids where the model's vocabulary
    is padded beyond the tokenizer's. ``sampler`` continues an earlier generator instead of seeding a new one. Raises
    UsageError for a bad prompt, and while iterating CheckpointError for logits that are not finite.

    >>> tokens = generate(backend, [5, 9], settings=Sampling(temperature=0.0), stop_ids=[0], max_new_tokens=64)
    >>> list(tokens), tokens.finish
    ([2, 7, 7], 'stop')
    """
    if max_new_tokens < 0:
        raise UsageError(f"max_new_tokens = {max_new_tokens}: must be 0 or more.")
    vocabulary = min(vocab_size or backend.vocab_size, backend.vocab_size)
    prompt = fit_prompt(
        prompt_ids,
        context=backend.context,
        vocab_size=vocabulary,
        max_new_tokens=max_new_tokens,
        eot_id=eot_id,
    )
    return Generation(
        backend,
        prompt,
        sampler=sampler or Sampler(settings),
        stop_ids=frozenset(stop_ids),
        max_new_tokens=max_new_tokens,
        vocab_size=vocabulary,
    )


class Generation:
    """An iterator of token ids. It owns the backend's cache until it ends: one generation a backend at a time."""

    def __init__(
        self,
        backend: Backend,
        prompt: Prompt,
        *,
        sampler: Sampler,
        stop_ids: frozenset[int],
        max_new_tokens: int,
        vocab_size: int,
    ) -> None:
        self.prompt = prompt
        self.finish = ""
        """Empty while running, then ``"stop"`` (a stop token came) or ``"length"``."""
        self.slides = 0
        """How often the window moved on, forgetting what came before."""
        self._backend = backend
        self._sampler = sampler
        self._stop_ids = stop_ids
        self._max_new_tokens = max_new_tokens
        self._vocab_size = vocab_size
        self._held = 0
        self._tokens = self._run()

    @property
    def note(self) -> str:
        """A sentence for a person when the prompt was not read as given, else empty."""
        return self.prompt.note

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return next(self._tokens)

    def _run(self) -> Iterator[int]:
        history = list(self.prompt.ids)
        for index in range(self._max_new_tokens):
            logits_V = self._next_logits(history, fresh=index == 0)
            token = self._sampler.next(logits_V[: self._vocab_size], history)
            if token in self._stop_ids:
                self.finish = "stop"
                return
            history.append(token)
            yield token
        self.finish = "length"

    def _next_logits(self, history: list[int], *, fresh: bool) -> np.ndarray:
        """Logits after the whole history; only what the cache lacks is read."""
        if fresh:
            return self._read(history)
        if self._held == self._backend.context:
            self.slides += 1
            return self._read(history[-max(self._backend.context // 2, 1) :])
        self._held += 1
        return self._backend.step(np.array([[history[-1]]], dtype=np.int64))[0]

    def _read(self, ids: list[int]) -> np.ndarray:
        self._backend.start(1)
        self._held = len(ids)
        return self._backend.step(np.array([ids], dtype=np.int64))[0]
