"""JSON Lines: one object a line, with the text in a declared field."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Any

from ondevice.data.json_row import field_of, parse_object, text_of
from ondevice.data.readers import Leaf
from ondevice.data.scores import score_of
from ondevice.errors import DataError

__all__ = ["LINE_BYTES", "jsonl_rows", "jsonl_texts", "row_score", "titled"]

LINE_BYTES = 8 << 20  # parsed, one odd character can make a text four times as large
_EXPECTED = 'an object such as {"text": "..."}'


def jsonl_rows(blocks: Iterable[bytes], shown: str) -> Iterator[tuple[int, bytes]]:
    """Line number (from 1) and bytes of each line that is not blank.

    Raises DataError for a line longer than `LINE_BYTES`.
    """
    number, parts, size = 1, [b""], 0
    for block in blocks:
        first, *others = block.split(b"\n")
        parts.append(first)
        size += len(first)
        if size > LINE_BYTES:
            raise DataError(
                f"{shown}:{number}: this line is longer than {LINE_BYTES >> 20} MiB; write one JSON object a line, "
                "and cut very long texts into several rows."
            )
        for other in others:
            yield from _row(number, b"".join(parts))
            number, parts, size = number + 1, [other], len(other)
    yield from _row(number, b"".join(parts))


def _row(number: int, line: bytes) -> Iterator[tuple[int, bytes]]:
    if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)
    if line and not line.isspace():
        yield number, line


def jsonl_texts(
    leaf: Leaf, *, text_field: str, title_field: str, score_field: str = ""
) -> Iterator[tuple[int, str | bytes, float | None]]:
    """Line number, text (title, blank line, text) and score of each row.

    Bytes instead of a text are a line that is not valid UTF-8. Raises DataError for a broken line or field.
    """
    for number, line in jsonl_rows(leaf.blocks(), leaf.shown):
        try:
            decoded = line.decode()
        except UnicodeDecodeError:
            yield number, line, None
            continue
        where = f"{leaf.shown}:{number}"
        row = parse_object(decoded, where, expected=_EXPECTED)
        yield number, _text(row, text_field, title_field, where), row_score(row, score_field, where)


def _text(row: dict[str, Any], text_field: str, title_field: str, where: str) -> str:
    text = text_of(field_of(row, text_field, where, key="text_field"), text_field, where)
    title = field_of(row, title_field, where, key="title_field") if title_field else None
    if title is not None:
        text_of(title, title_field, where)
    return titled(title, text).replace("\r\n", "\n")


def titled(title: str | None, text: str) -> str:
    """Title, blank line, text; without the blank line where one of them is empty."""
    return f"{title}\n\n{text}" if title and text else title or text


def row_score(row: dict[str, Any], name: str, where: str) -> float | None:
    """The score in a field of a row; None where no field is named. Raises DataError where there is no number."""
    return score_of(field_of(row, name, where, key="score_field"), name, where) if name else None
