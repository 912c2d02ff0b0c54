"""The object in one line of a JSONL file, its fields, and how values are called. Knows no field by its name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from ondevice.errors import DataError, nearest

__all__ = ["field_of", "kind_of_value", "parse_object", "sound_text", "text_of"]

Pairs = list[tuple[str, Any]]
_FIELDS_SHOWN = 12
_SURROGATE = re.compile("[\ud800-\udfff]")


def parse_object(
    line: str, where: str, *, expected: str, as_object: Callable[[Pairs], dict[str, Any]] | None = None
) -> dict[str, Any]:
    """``expected`` says for a person what should be there; ``as_object`` may refuse fields by a ValueError.
    Raises DataError."""
    try:
        row = json.loads(line, object_pairs_hook=as_object)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not valid JSON ({error.msg} at column {error.colno}); correct or delete this line."
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: JSON that cannot be read ({error}); correct or delete this line.") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected {expected}, found {kind_of_value(row)}; correct this line.")
    return row


def field_of(row: Mapping[str, Any], name: str, where: str, *, key: str = "") -> Any:
    """A field of a row; ``key`` is the config key that names this one, if any does. Raises DataError naming the fields
    there are."""
    if name in row:
        return row[name]
    there = ", ".join(list(row)[:_FIELDS_SHOWN]) + (", ..." if len(row) > _FIELDS_SHOWN else "")
    then = f"; set {key} to one of them" if key else ""
    raise DataError(
        f"{where}: there is no field '{name}'{nearest(name, row)}; the fields are: {there or 'none'}{then}."
    )


def text_of(value: Any, name: str, where: str) -> str:
    """What a field holds, where that is a text. Raises DataError."""
    if not isinstance(value, str):
        raise DataError(f"{where}: the field '{name}' holds {kind_of_value(value)}, not text; correct this line.")
    return value


def sound_text(text: str, name: str, where: str) -> str:
    """The text of a field, which JSON lets hold half of a surrogate pair. Raises DataError for that."""
    if _SURROGATE.search(text):
        raise DataError(f"{where}: the field '{name}' holds half of a surrogate pair, which is no character; mend it.")
    return text


def kind_of_value(value: Any) -> str:
    """For a sentence, such as "a list"."""
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
