"""Tables as CSV or TSV: a header line with the names of the fields, then one row a document.

Strict: a row with more or fewer fields than the header, or a quotation that never ends, is named with file and line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator

from ondevice.data.json_row import field_of
from ondevice.data.readers_jsonl import row_score, titled
from ondevice.data.readers_utf8 import Chunk
from ondevice.errors import DataError

__all__ = ["FIELD_CHARS", "csv_texts"]

FIELD_CHARS = 8 << 20
_DELIMITERS = (",", ";", "\t", "|")


def csv_texts(
    chunks: Iterable[Chunk], shown: str, *, text_field: str, title_field: str, score_field: str = ""
) -> Iterator[tuple[int, str, float | None]]:
    """Line on which each row begins, its text (title, blank line, text) and its score. Raises DataError for a broken
    row."""
    lines = _Lines(chunks, shown)
    header = next(lines, "")
    delimiter = max(_DELIMITERS, key=header.count)
    _, names = next(_rows([header], delimiter, lines), (1, []))
    for line, values in _rows(lines, delimiter, lines):
        if len(values) != len(names):
            raise DataError(
                f"{shown}:{line}: this row has {len(values)} fields where the header has {len(names)}; correct it."
            )
        row = dict(zip(names, values, strict=True))
        text = field_of(row, text_field, f"{shown}:{line}", key="text_field")
        title = field_of(row, title_field, f"{shown}:{line}", key="title_field") if title_field else ""
        yield line, titled(title, text), row_score(row, score_field, f"{shown}:{line}")


class _Lines:
    """Lines with their line ends. ``first`` is the number of the first one taken since it was set to 0."""

    def __init__(self, chunks: Iterable[Chunk], shown: str) -> None:
        self._lines = self._numbered(chunks)
        self.shown = shown
        self.first = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        number, text = next(self._lines)
        self.first = self.first or number
        return text

    def _numbered(self, chunks: Iterable[Chunk]) -> Iterator[tuple[int, str]]:
        held, number = "", 1
        for chunk in chunks:
            number = number if held else chunk.line
            *whole, held = (held + chunk.text).split("\n")
            for text in whole:
                yield number, f"{text}\n"
                number += 1
            if len(held) > FIELD_CHARS:
                raise DataError(f"{self.shown}:{number}: this line is longer than {FIELD_CHARS >> 20} Mi characters.")
        if held:
            yield number, held


def _rows(source: Iterable[str], delimiter: str, lines: _Lines) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, with the line on which each begins."""
    csv.field_size_limit(FIELD_CHARS)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    while True:
        lines.first = 0
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise DataError(
                f"{lines.shown}:{lines.first or 1}: the row that begins here is not CSV ({error}); correct it."
            ) from error
        if values is None:
            return
        if values:
            yield lines.first, values
