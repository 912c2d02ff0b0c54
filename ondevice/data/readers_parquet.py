"""Parquet tables, through the pyarrow package: one row a document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ondevice.data.json_row import field_of
from ondevice.data.readers import refuse_bomb
from ondevice.data.readers_jsonl import titled
from ondevice.data.scores import score_of
from ondevice.errors import DataError, DeviceError

__all__ = ["parquet_texts"]

_ROWS = 512  # at once: the longest text of real corpora times this is little memory


def parquet_texts(
    path: Path, shown: str, *, text_field: str, title_field: str, score_field: str = ""
) -> Iterator[tuple[int, str, float | None]]:
    """Number of each row (from 1), its text (title, blank line, text; empty where the table has none) and its score.

    Raises DataError for a damaged file, a field that is not there or holds no text, and a compressed bomb; DeviceError
    where the package is missing.
    """
    parquet = _package()
    try:
        with parquet.ParquetFile(path, memory_map=True, pre_buffer=False) as table:
            yield from _rows(table, path, shown, text_field, title_field, score_field)
    except OSError as error:  # pyarrow's own errors are kinds of OSError and ValueError
        raise DataError(f"{shown}: cannot be read as Parquet ({error}); fetch it again or leave it out.") from error
    except ValueError as error:
        raise DataError(f"{shown}: not a Parquet file or a damaged one ({error}); fetch it again.") from error


def _package() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DeviceError(
            "The pyarrow package, which reads Parquet, is not installed: run `pip install pyarrow` (in Termux `pkg "
            "install python-pyarrow`), or turn the table into JSONL."
        ) from error
    return parquet


def _rows(
    table: Any, path: Path, shown: str, text_field: str, title_field: str, score_field: str
) -> Iterator[tuple[int, str, float | None]]:
    _check_fields(table.schema_arrow, shown, text_field, title_field)
    if score_field:
        field_of({field.name: field for field in table.schema_arrow}, score_field, shown, key="score_field")
    refuse_bomb(shown, _largest_stretch(table.metadata), path.stat().st_size)
    number, columns = 0, [name for name in (text_field, title_field, score_field) if name]
    for batch in table.iter_batches(batch_size=_ROWS, columns=list(dict.fromkeys(columns))):
        texts = batch.column(text_field).to_pylist()
        titles = batch.column(title_field).to_pylist() if title_field else [None] * len(texts)
        values = batch.column(score_field).to_pylist() if score_field else [None] * len(texts)
        for title, text, value in zip(titles, texts, values, strict=True):
            number += 1
            score = score_of(value, score_field, f"{shown}:{number}") if score_field else None
            yield number, titled(title, text or "").replace("\r\n", "\n"), score


def _check_fields(schema: Any, shown: str, text_field: str, title_field: str) -> None:
    kinds = {field.name: str(field.type) for field in schema}
    for name, key in ((text_field, "text_field"), (title_field, "title_field")):
        if name and field_of(kinds, name, shown, key=key) not in ("string", "large_string", "string_view"):
            raise DataError(f"{shown}: the field '{name}' holds {kinds[name]}, not text; set {key} to another.")


def _largest_stretch(metadata: Any) -> int:
    """Bytes of the largest stretch of rows that is unpacked at once."""
    return max((metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)), default=0)
