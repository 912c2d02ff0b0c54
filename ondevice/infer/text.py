"""Text after a prompt, piece by piece: whole characters only, and never a part of a stop string."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Protocol

from ondevice.data.tokenizer_base import StreamDecoder
from ondevice.errors import UsageError
from ondevice.infer.backend import Backend
from ondevice.infer.generate import Generation, generate
from ondevice.infer.sampling import Sampler, Sampling

__all__ = ["TextStream", "TextTokenizer", "stream_text", "stripped"]


class TextTokenizer(Protocol):
    """What is needed of a tokenizer of ``ondevice.data``."""

    @property
    def eot_id(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode_bytes(self, ids: Iterable[int]) -> bytes: ...


def stream_text(
    backend: Backend,
    tokenizer: TextTokenizer,
    prompt: str | Sequence[int],
    *,
    settings: Sampling,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    stop_ids: Collection[int] | None = None,
    sampler: Sampler | None = None,
    pause: Callable[[], None] = lambda: None,
) -> TextStream:
    """Pieces of new text after a text or token ids. Ends before the first stop string, at a stop token (the
    end-of-text token where ``stop_ids`` is None) or after ``max_new_tokens``. ``pause`` is called after each token;
    what it raises ends the text. Raises UsageError for an empty stop string, and as `generate`.

    >>> stream = stream_text(backend, tokenizer, "Once", settings=Sampling(), max_new_tokens=64, stop=["THE END"])
    >>> for piece in stream:
    ...     print(piece, end="", flush=True)
    >>> stream.finish, stream.note
    ('length', '')
    """
    if "" in stop:
        raise UsageError("A stop string is empty, which would stop everywhere; leave it out.")
    tokens = generate(
        backend,
        tokenizer.encode(prompt) if isinstance(prompt, str) else prompt,
        settings=settings,
        stop_ids={tokenizer.eot_id} if stop_ids is None else stop_ids,
        max_new_tokens=max_new_tokens,
        eot_id=tokenizer.eot_id,
        vocab_size=tokenizer.vocab_size,
        sampler=sampler,
    )
    return TextStream(tokens, tokenizer, tuple(stop), pause)


class TextStream:
    """An iterator of pieces of text, none empty."""

    def __init__(
        self, tokens: Generation, tokenizer: TextTokenizer, stop: tuple[str, ...], pause: Callable[[], None]
    ) -> None:
        self.ids: list[int] = []
        """Every token drawn so far, those of a stop string included."""
        self._tokens = tokens
        self._decoder = StreamDecoder(tokenizer)
        self._stop, self._pause = stop, pause
        self._stopped = False
        self._pieces = self._run()

    @property
    def finish(self) -> str:
        """Empty while running, then ``"stop"`` (a stop token or string came) or ``"length"``."""
        return "stop" if self._stopped else self._tokens.finish

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The ids that were read."""
        return self._tokens.prompt.ids

    @property
    def note(self) -> str:
        """A sentence for a person when the prompt was not read as given, else empty."""
        return self._tokens.note

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        return next(self._pieces)

    def _run(self) -> Iterator[str]:
        pending = ""
        for piece in self._decoded():
            pending += piece
            end = _first_stop(pending, self._stop)
            if end is not None:
                self._stopped = True
                if end:
                    yield pending[:end]
                return
            safe = len(pending) - _begun_stop(pending, self._stop)
            if safe:
                yield pending[:safe]
            pending = pending[safe:]
        if pending:  # it began like a stop string and ended as none
            yield pending

    def _decoded(self) -> Iterator[str]:
        for token in self._tokens:
            self.ids.append(token)
            self._pause()
            yield self._decoder.feed(token)
        yield self._decoder.flush()


def stripped(pieces: Iterable[str]) -> Iterator[str]:
    """The pieces without white space around the whole text, none empty."""
    held, begun = "", False
    for piece in pieces:
        text = held + piece if begun else (held + piece).lstrip()
        begun = begun or bool(text)
        kept = text.rstrip()
        held = text[len(kept) :]
        if kept:
            yield kept


def _first_stop(text: str, stop: tuple[str, ...]) -> int | None:
    """Where the first whole stop string begins."""
    return min((at for each in stop if (at := text.find(each)) >= 0), default=None)


def _begun_stop(text: str, stop: tuple[str, ...]) -> int:
    """Length of the longest end of ``text`` with which a stop string begins."""
    longest = max((len(each) for each in stop), default=0)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(each.startswith(text[-length:]) for each in stop):
            return length
    return 0
