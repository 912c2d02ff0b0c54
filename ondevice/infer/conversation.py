"""A conversation with one model: what was said, what of it is read again, and answers piece by piece.

Knows no terminal. One answer is written at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from ondevice.errors import OndeviceError, UsageError
from ondevice.infer.backend import Backend
from ondevice.infer.chat import ChatFormat, Message, fit_messages
from ondevice.infer.prefix import PrefixBackend
from ondevice.infer.sampling import Sampler, Sampling
from ondevice.infer.text import TextStream, TextTokenizer, stream_text, stripped

__all__ = ["Conversation", "Reply"]


@dataclass(kw_only=True)
class Reply:
    """An answer: iterate for its pieces, without white space around the whole. ``dropped`` messages were not read,
    and ``reused`` tokens of the prompt had been read before."""

    prompt_tokens: int
    dropped: int
    pieces: TextStream
    text: str = ""

    @property
    def tokens(self) -> int:
        return len(self.pieces.ids)

    @property
    def finish(self) -> str:
        return self.pieces.finish


class Conversation:
    """``room`` tokens of the context are kept for an answer, which may have as many unless ``length`` says less.

    >>> talk = Conversation(backend, tokenizer, chat_of(tokenizer), settings=Sampling(), system="Be brief.")
    >>> for piece in talk.say("Hello"):
    ...     print(piece, end="")
    """

    def __init__(
        self,
        backend: Backend,
        tokenizer: TextTokenizer,
        chat: ChatFormat,
        *,
        settings: Sampling,
        length: int = 256,
        system: str = "",
        stop: Sequence[str] = (),
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._backend, self._tokenizer, self._chat = PrefixBackend(backend), tokenizer, chat
        self._length, self._stop, self._pause = length, tuple(stop), pause
        self.system = system
        self.messages: list[Message] = []
        """What was said, without the system's words."""
        self.last: Reply | None = None
        self.settings = settings

    @property
    def settings(self) -> Sampling:
        return self._settings

    @settings.setter
    def settings(self, value: Sampling) -> None:
        """From now on, with a generator that begins anew."""
        self._settings, self._sampler = value, Sampler(value)

    @property
    def reused(self) -> int:
        """Tokens of the last prompt that were not read again."""
        return self._backend.reused

    def say(self, text: str) -> Iterator[str]:
        """The pieces of the answer. However it ends, what was said so far is kept; a message that cannot be answered
        is not. Raises UsageError for a message that is empty or longer than the context."""
        if not text.strip():
            raise UsageError("The message is empty; write something.")
        self.messages.append(Message(role="user", content=text))
        return self._answer()

    def retry(self) -> Iterator[str]:
        """Another answer to the last message. Raises UsageError where there is none."""
        if not self.messages:
            raise UsageError("Nothing was said yet.")
        self._take_back("assistant")
        return self._answer()

    def undo(self) -> bool:
        """Takes the last turn back; False where there is none."""
        there = bool(self.messages)
        self._take_back("assistant")
        self._take_back("user")
        return there

    def reset(self) -> None:
        """Forgets what was said, and begins the generator anew."""
        self.messages.clear()
        self.settings = replace(self._settings)

    def _take_back(self, role: str) -> None:
        if self.messages and self.messages[-1].role == role:
            self.messages.pop()

    def _answer(self) -> Iterator[str]:
        reply = self._begun()
        try:
            for piece in stripped(reply.pieces):
                reply.text += piece
                yield piece
        finally:
            self.messages.append(Message(role="assistant", content=reply.text))

    def _begun(self) -> Reply:
        head = [Message(role="system", content=self.system)] if self.system else []
        room = min(self._length, self._backend.context // 2)
        try:
            fitted = fit_messages([*head, *self.messages], self._chat, context=self._backend.context, room=room)
        except OndeviceError:
            self._take_back("user")
            raise
        pieces = stream_text(
            self._backend,
            self._tokenizer,
            fitted.ids,
            settings=self._settings,
            max_new_tokens=min(self._length, self._backend.context - len(fitted.ids)),
            stop=(*self._stop, *self._chat.stop),
            stop_ids=self._chat.stop_ids,
            sampler=self._sampler,
            pause=self._pause,
        )
        self.last = Reply(prompt_tokens=len(fitted.ids), dropped=fitted.dropped, pieces=pieces)
        return self.last
