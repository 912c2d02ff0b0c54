"""Many prompts from a JSONL file, their texts into another, group by group, so that an interrupted work goes on.

A row of the output is the row of the input with ``text``, ``tokens``, ``finish``, ``note`` and ``written_by``, in the
same order; the last is a hash of the model and the settings, so that texts of two ways are never taken for one work.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ondevice.data.json_row import field_of, parse_object, sound_text, text_of
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import DataError, UsageError
from ondevice.infer.backend import BatchBackend
from ondevice.infer.batch import generate_batch
from ondevice.infer.sampling import Sampling
from ondevice.run.files import fsync_folder, write_all, write_error

__all__ = ["done_rows", "read_rows", "way_of", "write_rows"]

_LARGEST = 256 << 20
_EXPECTED = 'an object such as {"prompt": "Once"}'
_WRITTEN = ("text", "tokens", "finish", "note", "written_by")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Objects with a ``prompt``. Raises DataError naming the line, UsageError for a file that is too large."""
    try:
        if path.stat().st_size > _LARGEST:
            raise UsageError(f"{path}: more than {_LARGEST >> 20} MiB; cut it into several files.")
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert it first.") from error
    rows = [_row(line, f"{path}:{number}") for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise DataError(f"{path}: no rows; write one object a line, {_EXPECTED.removeprefix('an object ')}.")
    return rows


def _row(line: str, where: str) -> dict[str, Any]:
    row = parse_object(line, where, expected=_EXPECTED)
    sound_text(text_of(field_of(row, "prompt", where), "prompt", where), "prompt", where)
    return row


def way_of(what: str, settings: Sampling, max_new_tokens: int) -> str:
    """A name for texts that this model (``what`` says which) writes with these settings."""
    told = json.dumps([what, asdict(settings), max_new_tokens], sort_keys=True)
    return hashlib.sha256(told.encode("utf-8", "replace")).hexdigest()[:16]


def done_rows(path: Path, rows: list[dict[str, Any]], way: str) -> int:
    """How many rows an earlier work wrote in the same ``way``; a torn last line of it is cut off.

    Raises DataError for a file of anything else, which stays as it is.
    """
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); choose another file with --out.") from error
    kept, torn = whole[: whole.rfind(b"\n") + 1], whole[whole.rfind(b"\n") + 1 :]
    lines = kept.decode("utf-8", "replace").split("\n")[:-1]
    for number, (line, row) in enumerate(zip(lines, rows, strict=False), 1):
        try:
            found = _row(line, f"{path}:{number}")
        except DataError as error:
            raise DataError(
                f"{path}:{number}: no row that was written here; choose another file with --out."
            ) from error
        if found["prompt"] != row["prompt"]:
            raise DataError(f"{path}:{number}: the text of another prompt; choose another file with --out.")
        if "text" not in found or "finish" not in found:
            raise DataError(f"{path}:{number}: a row without a text that was written; choose another file with --out.")
        if found.get("written_by", way) != way:  # rows of earlier versions do not tell
            raise DataError(
                f"{path}:{number}: written by another model or with other settings; choose another file with --out, or "
                "delete this one."
            )
    if len(lines) + bool(torn) > len(rows):
        raise DataError(f"{path}: has more rows than there are prompts; choose another file with --out.")
    if torn:
        if not _begins(torn, rows[len(lines)]):
            raise DataError(f"{path}: its last line is none that was written here; choose another file with --out.")
        os.truncate(path, len(kept))
    return len(lines)


def _begins(torn: bytes, row: dict[str, Any]) -> bool:
    """Whether this may be the beginning of what `write_rows` writes of a row."""
    own = {key: value for key, value in row.items() if key not in _WRITTEN}
    if len(own) < len(row):  # what is written stands among the row's own keys
        return torn.startswith(b"{")
    begun = (json.dumps(row, ensure_ascii=False)[:-1] + ', "text": ').encode("utf-8", "replace")
    return begun.startswith(torn) or torn.startswith(begun)


def write_rows(
    backend: BatchBackend,
    tokenizer: Tokenizer,
    rows: list[dict[str, Any]],
    path: Path,
    *,
    way: str,
    settings: Sampling,
    max_new_tokens: int,
    batch: int,
    pause: Callable[[], None],
) -> Iterator[int]:
    """Appends the texts of the rows to a file, durably, and gives after each group how many are done.

    Raises ResourceError or DataError where the file cannot be written, and as `generate_batch`.
    """
    for start in range(0, len(rows), batch):
        group = rows[start : start + batch]
        written = generate_batch(
            backend,
            [tokenizer.encode(row["prompt"]) for row in group],
            settings=settings,
            stop_ids={tokenizer.eot_id},
            max_new_tokens=max_new_tokens,
            eot_id=tokenizer.eot_id,
            vocab_size=tokenizer.vocab_size,
            batch=batch,
            pause=pause,
        )
        told = [
            {**row, "text": tokenizer.decode(list(each.ids)), "tokens": len(each.ids), "finish": each.finish}
            | ({"note": each.note} if each.note else {})
            | {"written_by": way}
            for row, each in zip(group, written, strict=True)
        ]
        _append(path, "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in told).encode("utf-8", "replace"))
        yield start + len(group)


def _append(path: Path, data: bytes) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            write_all(fd, data)
            os.fsync(fd)
        finally:
            os.close(fd)
        fsync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
