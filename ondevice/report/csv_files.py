"""A run's telemetry as CSV files for spreadsheets: ``steps.csv``, ``evals.csv``, ``readings.csv``.

Every record that still counts, nothing thinned; values under one name a column, sources as ``val_loss.SOURCE``.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ondevice.run.directory import RunDir
from ondevice.run.files import make_folder, write_atomic, write_error
from ondevice.run.telemetry import read_records

__all__ = ["counted", "flat", "write_csv"]

_FILES = {"step": "steps.csv", "eval": "evals.csv", "reading": "readings.csv"}
_LEFT_OUT = ("v", "kind", "chain", "generations")


def write_csv(run: RunDir, folder: Path) -> list[Path]:
    """Writes what there is and gives the files. Raises ResourceError or DataError where they cannot be written."""
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in _FILES}
    for record in counted(read_records(run.telemetry)):
        if record["kind"] in rows:
            rows[record["kind"]].append(flat(record))
    written = []
    for kind, name in _FILES.items():
        if rows[kind]:
            path = folder / name
            try:
                make_folder(folder)
                write_atomic(path, _table(rows[kind]))
            except OSError as error:
                raise write_error(path, error) from error
            written.append(path)
    return written


def counted(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Without the steps and evaluations that a kill undid: they come again. Readings stay, since they happened."""
    kept: list[dict[str, Any]] = []
    for record in records:
        if record["kind"] == "launch":
            resumed = record.get("resumed_step")
            last = resumed if type(resumed) is int else -1
            kept = [each for each in kept if each["kind"] not in ("step", "eval") or each["step"] <= last]
        else:
            kept.append(record)
    yield from kept


def flat(record: dict[str, Any]) -> dict[str, Any]:
    """``{"val_loss": {"en": 3}} -> {"val_loss.en": 3}``; lists are left out."""
    row: dict[str, Any] = {}
    for key, value in record.items():
        if key in _LEFT_OUT or isinstance(value, list):
            continue
        if isinstance(value, dict):
            row |= {f"{key}.{inner}": item for inner, item in value.items() if not isinstance(item, dict | list)}
        else:
            row[key] = value
    return row


def _table(rows: list[dict[str, Any]]) -> bytes:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator=os.linesep)
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula stays text."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value
