"""One row of an example dataset: instruction, chat or completion, as a question and the answer to learn.

Knows rows, not files or tokens. What is wrong with a row is one sentence that begins with where it stands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ondevice.data.json_row import field_of, kind_of_value, parse_object, sound_text
from ondevice.errors import DataError, nearest

__all__ = ["FIELDS", "KINDS", "Example", "kind_of_row", "parse_example", "parse_row"]

FIELDS = {
    "instruction": ("instruction", "input", "output"),
    "chat": ("messages",),
    "completion": ("prompt", "completion"),
}
"""Kind -> the fields of a row. ``input`` may be absent; so may ``system``, which may stand before an instruction."""

KINDS = tuple(FIELDS)
_ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True)
class Example:
    """``messages`` is None for a completion, whose prompt and completion stand as they are, without a template.

    ``question`` is all that comes before the last answer: rows with the same one ask the same.
    """

    question: str
    answer: str
    messages: tuple[dict[str, Any], ...] | None = None

    @property
    def asked(self) -> str:
        """What the user said last; the prompt of a completion."""
        turns = self.messages or ()
        return next((turn["content"] for turn in reversed(turns) if turn["role"] == "user"), self.question)


def parse_row(line: bytes, where: str) -> dict[str, Any]:
    """The JSON object of a line. Raises DataError (UnicodeDecodeError for bytes that are no UTF-8)."""
    expected = "an object with the fields of an example"
    return parse_object(line.decode(), where, expected=expected, as_object=_no_key_twice)


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the field '{twice}' is there twice")
    return found


def kind_of_row(row: Mapping[str, Any]) -> str | None:
    """The kind whose fields a row has; None where it has those of none."""
    return next((kind for kind, fields in FIELDS.items() if all(f in row for f in fields if f != "input")), None)


def parse_example(row: Mapping[str, Any], kind: str, where: str, *, held_out: bool = False) -> Example:
    """The example of a row. A held-out row may give what is ``expected`` instead of an ``output``.

    Raises DataError: a field that is missing, empty or no text, an unknown role, no answer, half a surrogate pair.
    """
    if kind == "chat":
        return _chat(row, where)
    if kind == "completion":
        prompt = _text(row, "prompt", where, may_be_empty=True)
        return Example(prompt, _text(row, "completion", where))
    return _instruction(row, where, held_out=held_out)


def _instruction(row: Mapping[str, Any], where: str, *, held_out: bool) -> Example:
    question = _text(row, "instruction", where)
    if row.get("input") is not None:
        given = _text(row, "input", where, may_be_empty=True)
        question += f"\n\n{given}" if given else ""
    answer = _expected(row, where) if held_out and "output" not in row else _text(row, "output", where)
    before = [{"role": "system", "content": _text(row, "system", where)}] if row.get("system") else []
    turns = [*before, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Example("\n\n".join([each["content"] for each in turns[:-1]]), answer, tuple(turns))


def _expected(row: Mapping[str, Any], where: str) -> str:
    value = field_of(row, "expected", where)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return sound_text(text, "expected", where)


def _chat(row: Mapping[str, Any], where: str) -> Example:
    messages = field_of(row, "messages", where)
    if messages == []:
        raise DataError(f"{where}: 'messages' has no turn in it; give its turns with role and content.")
    if not isinstance(messages, list):
        raise DataError(
            f"{where}: 'messages' must be a list of turns with role and content, not {kind_of_value(messages)}."
        )
    turns = [_turn(message, f"{where}: message {number}") for number, message in enumerate(messages, start=1)]
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=None)
    if last is None:
        raise DataError(f'{where}: no message has the role "assistant", so there is nothing to learn; add the answer.')
    question = "\n\n".join([f"{turn['role']}: {turn['content']}" for turn in turns[:last]])
    return Example(question, turns[last]["content"], tuple(turns[: last + 1]))


def _turn(message: Any, where: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise DataError(f"{where} is {kind_of_value(message)}; it must be an object with role and content.")
    role = _text(message, "role", where)
    if role not in _ROLES:
        raise DataError(f"{where} has the role '{role}'{nearest(role, _ROLES)}; known are {', '.join(_ROLES)}.")
    content = _text(message, "content", where, may_be_empty=role != "assistant")
    return {**message, "role": role, "content": content}


def _text(row: Mapping[str, Any], name: str, where: str, *, may_be_empty: bool = False) -> str:
    value = field_of(row, name, where)
    if not isinstance(value, str):
        advice = "; write JSON as a string" if isinstance(value, dict | list) else ""
        raise DataError(f"{where}: the field '{name}' holds {kind_of_value(value)}, not text{advice}.")
    if not may_be_empty and not value.strip():
        raise DataError(f"{where}: the field '{name}' is empty; fill it in or delete the row.")
    return sound_text(value, name, where)
