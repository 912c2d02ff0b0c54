"""The example rows of declared sources, in a deterministic order, and which kind they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from ondevice.data.documents import Problems
from ondevice.data.examples import Example, kind_of_row, parse_example, parse_row
from ondevice.data.readers import Leaf, Unreadable, file_leaf
from ondevice.data.readers_jsonl import jsonl_rows
from ondevice.data.sources_find import Found, find
from ondevice.data.sources_types import is_archive
from ondevice.errors import DataError, UsageError
from ondevice.run.schema import CleanConfig, DataConfig, SourceConfig
from ondevice.run.schema_data import ItemsConfig

__all__ = ["Row", "example_leaves", "find_kind", "iter_examples"]

_LOOKED_AT = 8  # rows of a source, to tell its kind


class Row(NamedTuple):
    """An example and where it stands, for people."""

    example: Example
    where: str


def find_kind(data: DataConfig, *, base: Path) -> str | None:
    """The kind of examples that the sources hold, None for plain text. A declared kind is believed.

    Raises UsageError where examples and text are mixed or a key is for text only, DataError for rows of two kinds.
    """
    if data.examples == "off" or not data.sources:
        return None
    found = [find(source, base) for source in data.sources]
    rows = [place.resolved.format == "jsonl" for place in found]
    if data.examples != "auto":
        if not all(rows):
            where = found[rows.index(False)].resolved.path
            raise UsageError(f"{where}: data.examples = '{data.examples}' needs files of JSON Lines (.jsonl).")
        return _with_keys_for_examples(data, data.examples)
    kinds = {
        _guess(place, source.text_field) if is_rows else None
        for place, source, is_rows in zip(found, data.sources, rows, strict=True)
    }
    if len(kinds) > 1:
        names = ", ".join(sorted(kind or "plain text" for kind in kinds))
        raise UsageError(
            f"The sources hold different things ({names}), which one run does not learn together; make them alike, or "
            "say data.examples = 'off' to read them all as text."
        )
    kind = kinds.pop()
    return None if kind is None else _with_keys_for_examples(data, kind)


def _with_keys_for_examples(data: DataConfig, kind: str) -> str:
    if data.clean != CleanConfig():
        raise UsageError("data.clean is for plain text; `ondevice data check` finds what is wrong with examples.")
    if data.items != ItemsConfig():
        raise UsageError("data.items is for plain text; data.too_long says what becomes of long examples.")
    return kind


def _guess(place: Found, text_field: str) -> str | None:
    """By the first rows that can be read; what is wrong with others is found when all are read."""
    try:
        rows = (row for leaf in example_leaves(place) for row in _first_rows(leaf))
        return next((None if text_field in row else kind_of_row(row) for row in rows), None)
    except (Unreadable, DataError):  # said where the source is read
        return None


def _first_rows(leaf: Leaf) -> Iterator[dict[str, Any]]:
    with closing(leaf.blocks()) as blocks:
        for seen, (number, line) in enumerate(jsonl_rows(blocks, leaf.shown)):
            if seen == _LOOKED_AT:
                return
            try:
                yield parse_row(line, f"{leaf.shown}:{number}")
            except (DataError, UnicodeDecodeError):
                continue


def example_leaves(place: Found) -> Iterator[Leaf]:
    """The files of a source. Raises DataError for an archive, or for a file that was named and cannot be read."""
    for entry in place.files:
        if is_archive(entry.path.name):
            raise DataError(f"{entry.path}: examples are not read from archives; unpack it first.")
        yield file_leaf(entry)


def iter_examples(source: SourceConfig, kind: str, *, base: Path, bad_utf8: str, problems: Problems) -> Iterator[Row]:
    """The examples of a source; lines with bytes that are no UTF-8 are counted in ``problems``, or refused.

    Raises DataError, with file and line, for every other row that is no example of this kind.
    """
    place = find(source, base)
    for leaf in example_leaves(place):
        try:
            for number, line in jsonl_rows(leaf.blocks(), leaf.shown):
                where = f"{leaf.shown}:{number}"
                try:
                    row = parse_row(line, where)
                except UnicodeDecodeError as error:
                    _bad_line(place, leaf, number, bad_utf8, problems, error)
                    continue
                yield Row(parse_example(row, kind, where), where)
        except Unreadable as error:
            raise DataError(f"{leaf.shown} {error.detail}; {error.advice}.") from error


def _bad_line(
    place: Found, leaf: Leaf, number: int, bad_utf8: str, problems: Problems, error: UnicodeDecodeError
) -> None:
    if bad_utf8 == "refuse":
        raise DataError(
            f"{leaf.shown}:{number}: not valid UTF-8 at byte {error.start} of the line; correct it, or set "
            'data.bad_utf8 = "skip_line" to leave such lines out.'
        ) from error
    problems.add(place.resolved.name, "invalid_utf8_line", f"{leaf.origin}:{number}")
