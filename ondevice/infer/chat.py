"""Conversations: messages, the format in which a model reads them, and what of a long one still fits the context.

Knows no terminal and no server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ondevice.data.chat import chat_format, encode_chat, end_ids
from ondevice.data.chat_template import PLAIN
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import UsageError

__all__ = ["ROLES", "ChatFormat", "Fitted", "Message", "chat_of", "fit_messages"]

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, kw_only=True)
class Message:
    """``role`` is one of `ROLES`."""

    role: str
    content: str

    def to_json(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, kw_only=True)
class ChatFormat:
    """How a model reads a conversation: ``encode`` gives the ids up to where its answer begins; the answer ends at one
    of ``stop_ids`` or before one of ``stop``. ``what`` says for people what is unusual about it."""

    encode: Callable[[Sequence[Message]], list[int]]
    stop_ids: frozenset[int]
    stop: tuple[str, ...] = ()
    what: str = ""


def chat_of(tokenizer: Tokenizer) -> ChatFormat:
    """The format of a tokenizer's template. A model without one reads a transcript, and is stopped where it would go
    on with the other's part."""
    plain = chat_format(tokenizer).template == PLAIN
    return ChatFormat(
        encode=lambda messages: encode_chat([each.to_json() for each in messages], tokenizer),
        stop_ids=end_ids(tokenizer),
        stop=tuple(f"### {role.capitalize()}:" for role in ROLES) if plain else (),
        what="it has no chat template: it goes on with a plain transcript, and answers only if its text taught it to"
        if plain
        else "",
    )


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What is read of a conversation; ``dropped`` messages, the oldest, are not."""

    ids: tuple[int, ...]
    dropped: int


def fit_messages(messages: Sequence[Message], chat: ChatFormat, *, context: int, room: int) -> Fitted:
    """The ids of a conversation that leaves ``room`` tokens for the answer, at most half of the context.

    The oldest turns go first and as a whole: a user's message with all answers to it. Leading system messages and the
    last turn stay. Raises UsageError when these alone do not fit.
    """
    most = context - min(room, max(1, context // 2))
    first = next((index for index, each in enumerate(messages) if each.role != "system"), len(messages))
    head, turns = list(messages[:first]), _turns(messages[first:])
    dropped = 0
    while True:
        ids = chat.encode([*head, *(each for turn in turns for each in turn)])
        if len(ids) <= most:
            return Fitted(ids=tuple(ids), dropped=dropped)
        if len(turns) <= 1:
            raise UsageError(
                f"The message has {len(ids)} tokens with what belongs to it, and {most} of the context of {context} "
                "are left for it; make it shorter."
            )
        dropped += len(turns.pop(0))


def _turns(messages: Sequence[Message]) -> list[list[Message]]:
    """Each begins with a user's message; what comes before the first of them is a turn of its own."""
    turns: list[list[Message]] = []
    for each in messages:
        if each.role == "user" or not turns:
            turns.append([each])
        else:
            turns[-1].append(each)
    return turns
