"""The object in one line of a JSONL file, and how its values are called in a sentence. Knows no fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ondevice.errors import DataError

__all__ = ["kind_of_value", "parse_object"]

Pairs = list[tuple[str, Any]]


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


def kind_of_value(value: Any) -> str:
    """For a sentence, such as "a list"."""
    names = {dict: "an object", list: "a list", str: "a string", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
