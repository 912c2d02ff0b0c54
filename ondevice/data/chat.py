"""Conversations as text and as ids: for generating (`encode_chat`) and for learning what the assistant says
(`encode_conversation`).

Special tokens that the template writes are single ids. Their names inside a message are ordinary letters, so that no
message can end a turn or begin another; where transformers is told ``sanitize_control_tokens`` it does the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ondevice.data.chat_template import PLAIN, ChatFormat, Message
from ondevice.data.special_tokens import SpecialTokens
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import DataError

__all__ = ["Lesson", "chat_format", "encode_chat", "encode_conversation", "end_ids", "render_chat", "same_ids"]

_BEGIN, _END = "\ue0f0", "\ue0f1"  # around what is to stay letters, until the text is cut; of no meaning in Unicode
_LONE = str.maketrans("", "", _BEGIN + _END)
_GUARDED = re.compile(f"{_BEGIN}([^{_BEGIN}{_END}]*){_END}")
_PROBE = ({"role": "user", "content": "Question"}, {"role": "assistant", "content": "Answer"})


class Lesson(NamedTuple):
    """Ids, and which of them are learned."""

    ids: list[int]
    learned: list[bool]


def chat_format(tokenizer: Tokenizer) -> ChatFormat:
    """The template of a tokenizer, or a plain one that ends answers with its end-of-text token."""
    if tokenizer.chat is not None:
        return tokenizer.chat
    names = {token: name for name, token in tokenizer.special_ids.items()}
    return ChatFormat(PLAIN, {"eos_token": names[tokenizer.eot_id]})


def same_ids(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers give the same ids, to plain text and to a conversation."""
    return one.sha256 == other.sha256 and chat_format(one) == chat_format(other)


def render_chat(messages: Sequence[Message], tokenizer: Tokenizer, *, add_generation_prompt: bool = True) -> str:
    """The text of a conversation, as transformers renders it; with the generation prompt, the assistant speaks next.

    Raises DataError where the template refuses the messages, DeviceError without jinja2.

    >>> render_chat([{"role": "user", "content": "Hi"}], tokenizer)
    '<|im_start|>user\\nHi<|im_end|>\\n<|im_start|>assistant\\n'
    """
    return chat_format(tokenizer).render(messages, add_generation_prompt=add_generation_prompt).text


def encode_chat(messages: Sequence[Message], tokenizer: Tokenizer, *, add_generation_prompt: bool = True) -> list[int]:
    """The ids of `render_chat`: what to give a model that is to answer."""
    special = SpecialTokens(tokenizer)
    guarded = [_guarded(message, special) for message in messages]
    text = render_chat(guarded, tokenizer, add_generation_prompt=add_generation_prompt)
    return special.ids_of(_pieces(text, special))


def end_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """Where to stop generating: the end of a text, and the special token that ends the assistant's turn."""
    chat, special = chat_format(tokenizer), SpecialTokens(tokenizer)
    ends = {tokenizer.eot_id}
    if (token := tokenizer.special_ids.get(chat.tokens.get("eos_token", ""))) is not None:
        ends.add(token)
    text = chat.render(_PROBE, add_generation_prompt=False).text
    after = list(special.pieces(text.rpartition("Answer")[2]))
    return frozenset(ends | {piece for piece in after[:1] if isinstance(piece, int)})


def encode_conversation(messages: Sequence[Message], tokenizer: Tokenizer) -> Lesson:
    """A whole conversation for learning: every turn of the assistant is learned with the token that ends it.

    Ends with the assistant's last turn; the end-of-text token follows where the template ends a turn with no special
    token. Raises DataError where no turn is the assistant's, or where the template changes earlier turns when later
    ones come.
    """
    special, ends = SpecialTokens(tokenizer), end_ids(tokenizer)
    guarded = [_guarded(message, special) for message in messages]
    text, spans = _spans(chat_format(tokenizer), guarded)
    lesson, at = Lesson([], []), 0
    for start, end in spans:
        _add(lesson, special.ids_of(_pieces(text[at:start], special)), learned=False)
        said = list(_pieces(text[start:end], special))
        if len(said) > 1 and isinstance(said[-1], str) and not said[-1].strip():
            end -= len(said[-1])  # a line break after the token that ends the turn belongs to what follows
            said.pop()
        _add(lesson, special.ids_of(said), learned=True)
        at = end
    if lesson.ids[-1] not in ends:
        _add(lesson, [tokenizer.eot_id], learned=True)
    return lesson


def _add(lesson: Lesson, ids: list[int], *, learned: bool) -> None:
    lesson.ids.extend(ids)
    lesson.learned.extend([learned] * len(ids))


def _spans(chat: ChatFormat, messages: Sequence[Message]) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The text of a conversation and where the assistant speaks in it, none empty."""
    text, generated = chat.render(messages, add_generation_prompt=False)
    spans = generated or tuple(_by_prefixes(chat, messages, text))
    spans = tuple((start, end) for start, end in spans if end > start)
    if not spans:
        raise DataError('there is nothing to learn: no message has the role "assistant" and a content.')
    return text, spans


def _by_prefixes(chat: ChatFormat, messages: Sequence[Message], text: str) -> Iterator[tuple[int, int]]:
    """Each turn of the assistant: from where the conversation before it, rendered alone, ends and the answer begins."""
    for index, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        before = chat.render(messages[:index], add_generation_prompt=True).text
        if not text.startswith(before):
            before = chat.render(messages[:index], add_generation_prompt=False).text
        after = chat.render(messages[: index + 1], add_generation_prompt=False).text
        if not (text.startswith(before) and text.startswith(after) and len(after) > len(before)):
            raise DataError(
                "the chat template renders earlier turns in another way when later ones follow, so what the assistant "
                "said cannot be told apart; write a conversation for each answer."
            )
        yield len(before), len(after)


def _guarded(value: Any, special: SpecialTokens) -> Any:
    """The message with names of special tokens marked as letters."""
    if isinstance(value, str):
        return special.marked(value.translate(_LONE), _BEGIN, _END)
    if isinstance(value, dict):
        return {key: _guarded(item, special) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_guarded(item, special) for item in value]
    return value


def _pieces(text: str, special: SpecialTokens) -> Iterator[int | str]:
    """Ids of special tokens and the texts between them; marked names are part of the texts."""
    letters = ""
    for number, part in enumerate(_GUARDED.split(text)):
        for piece in [part] if number % 2 else special.pieces(part.translate(_LONE)):
            if isinstance(piece, str):
                letters += piece
                continue
            if letters:
                yield letters
            yield piece
            letters = ""
    if letters:
        yield letters
