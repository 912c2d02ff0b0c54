"""Conversations: messages, the format in which a model reads them, and what of a long one still fits the context.

Knows no terminal and no server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ondevice.errors import UsageError

__all__ = ["ROLES", "ChatFormat", "Fitted", "Message", "fit_messages", "transcript_format"]

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
    of ``stop_ids`` or before one of ``stop``. ``what`` says for people where the format is from."""

    encode: Callable[[Sequence[Message]], list[int]]
    stop_ids: frozenset[int]
    stop: tuple[str, ...] = ()
    what: str = ""


def transcript_format(encode: Callable[[str], list[int]], *, eot_id: int) -> ChatFormat:
    """For a model that was never taught a format: a transcript, which a model that only goes on writing can go on with.

    >>> transcript_format(tokenizer.encode, eot_id=tokenizer.eot_id)
    """

    def written(messages: Sequence[Message]) -> list[int]:
        names = {"system": "", "user": "User: ", "assistant": "Assistant: "}
        lines = [f"{names[each.role]}{each.content}\n\n" for each in messages]
        return encode("".join(lines) + "Assistant:")

    what = "no chat template, so a plain transcript"
    return ChatFormat(encode=written, stop_ids=frozenset({eot_id}), stop=("\n\nUser:", "\nUser:"), what=what)


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
