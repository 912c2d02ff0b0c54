"""One model that many ask: requests of the API become text, one after the other, at a pace that the device allows.

Knows no sockets. Whoever asks says with ``gone`` whether anybody still waits for the text, and is asked at every token.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ondevice.errors import CheckpointError, DataError, UsageError
from ondevice.infer.api_error import ApiError, bad_request
from ondevice.infer.api_request import Asked
from ondevice.infer.chat import ChatFormat
from ondevice.infer.manners import Manners
from ondevice.infer.prefix import PrefixBackend
from ondevice.infer.sampling import Sampling
from ondevice.infer.text import TextStream, TextTokenizer, stream_text
from ondevice.infer.turns import Closed, Full, TooLate, Turns

__all__ = ["Answer", "ClientGone", "Engine"]

_SOON_S = 2.0
_HOT_S = 60.0


class ClientGone(Exception):
    """Nobody waits for the text any more."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A text that is being written: iterate for its pieces."""

    pieces: TextStream
    prompt_tokens: int
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def tokens(self) -> int:
        """Written so far."""
        return len(self.pieces.ids)

    @property
    def finish(self) -> str:
        return self.pieces.finish


class Engine:
    """``name`` is what clients call the model; ``defaults`` holds where a request leaves a setting out;
    ``length``: tokens of a completion that says nothing of it."""

    def __init__(
        self,
        backend: PrefixBackend,
        tokenizer: TextTokenizer,
        *,
        name: str,
        chat: ChatFormat,
        defaults: Sampling,
        manners: Manners,
        length: int = 128,
        most_waiting: int = 16,
        wait_s: float = 60.0,
    ) -> None:
        self.name, self.manners = name, manners
        self.turns = Turns(most_waiting=most_waiting)
        self._backend, self._tokenizer, self._chat = backend, tokenizer, chat
        self._defaults, self._length, self._wait_s = defaults, length, wait_s

    @contextmanager
    def answer(self, asked: Asked, *, gone: Callable[[], bool]) -> Iterator[Answer]:
        """The text that was asked for, once it is its turn. While iterating, ClientGone ends it.

        Raises ApiError for what cannot be answered, or not now.
        """
        ids = self._prompt(asked)
        most = self._backend.context - len(ids)
        settings = self._settings(asked)

        def look() -> None:
            if gone():
                raise ClientGone
            if self.turns.closed:
                raise ApiError(503, "The server is leaving.", retry_after_s=_HOT_S)

        def pause() -> None:
            look()
            self.manners.pause(look)

        self._refuse_when_held()
        with self._turn(look):
            self.manners.began()
            pieces = stream_text(
                self._backend,
                self._tokenizer,
                ids,
                settings=settings,
                max_new_tokens=min(most, self._wanted(asked, most)),
                stop=(*asked.stop, *(self._chat.stop if asked.prompt is None else ())),
                stop_ids=self._chat.stop_ids if asked.prompt is None else None,
                pause=pause,
            )
            yield Answer(pieces=pieces, prompt_tokens=len(ids))

    def echoed(self, asked: Asked) -> str:
        """The prompt as text, where it is to stand before the answer."""
        if not asked.echo or asked.prompt is None:
            return ""
        return (
            asked.prompt
            if isinstance(asked.prompt, str)
            else self._tokenizer.decode_bytes(asked.prompt).decode("utf-8", "replace")
        )

    def close(self) -> None:
        """Texts end where they are, and nobody waits any more."""
        self.turns.close()

    def _prompt(self, asked: Asked) -> list[int]:
        try:
            if asked.prompt is None:
                ids = self._chat.encode(asked.messages)
            elif isinstance(asked.prompt, str):
                ids = self._tokenizer.encode(asked.prompt)
            else:
                ids = list(asked.prompt)
        except (DataError, UsageError) as error:
            raise bad_request(str(error), param="messages" if asked.prompt is None else "prompt") from error
        wrong = next((each for each in ids if not 0 <= each < self._tokenizer.vocab_size), None)
        if wrong is not None:
            raise bad_request(
                f"Token {wrong} is outside the vocabulary of {self._tokenizer.vocab_size}.", param="prompt"
            )
        ids = ids or [self._tokenizer.eot_id]
        if len(ids) >= self._backend.context:
            raise bad_request(
                f"This model's context is {self._backend.context} tokens, and the prompt has {len(ids)}; shorten it.",
                param="messages" if asked.prompt is None else "prompt",
                code="context_length_exceeded",
            )
        return ids

    def _wanted(self, asked: Asked, most: int) -> int:
        if asked.max_tokens is not None:
            return asked.max_tokens
        return most if asked.prompt is None else self._length

    def _settings(self, asked: Asked) -> Sampling:
        seed = secrets.randbelow(2**32) if asked.seed is None else asked.seed % 2**64
        chosen: Mapping[str, Any] = {**vars(self._defaults), **asked.sampling, "seed": seed}
        try:
            return Sampling(**chosen)
        except UsageError as error:
            raise bad_request(str(error)) from error

    def _refuse_when_held(self) -> None:
        """Nobody shall wait for a phone to cool down who could ask again."""
        order = self.manners.look()
        if order.kind != "run":
            raise ApiError(503, f"The device rests. {order.reason}", retry_after_s=_HOT_S)

    @contextmanager
    def _turn(self, look: Callable[[], None]) -> Iterator[None]:
        try:
            with self.turns.take(timeout_s=self._wait_s, look=look):
                yield
        except Full as error:
            raise ApiError(429, "Too many wait already; ask again in a moment.", retry_after_s=_SOON_S) from error
        except TooLate as error:
            raise ApiError(503, f"No turn came within {self._wait_s:g} s.", retry_after_s=_SOON_S) from error
        except Closed as error:
            raise ApiError(503, "The server is leaving.", retry_after_s=_HOT_S) from error
        except CheckpointError as error:
            raise ApiError(500, str(error)) from error
