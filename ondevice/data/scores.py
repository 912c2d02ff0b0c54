"""Scores of documents for a curriculum: numbers from rows, and the file that keeps one for each item of a source.

The file holds float64, little-endian, in the order of the training tokens; the manifest has its size and hash. Written
by the dataset build, read by `ondevice.data.difficulty`. What a score means is the person's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.errors import DataError
from ondevice.run.files import sha256_of, write_atomic

__all__ = ["LARGEST_SCORE", "are_scores_there", "read_scores", "score_files", "score_of", "write_scores"]

LARGEST_SCORE = 1e12
_DTYPE = np.dtype("<f8")
_REMEDY = "`ondevice data build` makes them again."


def score_of(value: Any, name: str, where: str) -> float:
    """A value as a score; text is read as a number. Raises DataError for what is none, and for nan and infinity."""
    try:
        if value is None or isinstance(value, bool):
            raise ValueError
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"{where}: the field '{name}' holds {_shown(value)}, which is no number; correct it, leave the row out, or "
            "set score_field to another field."
        ) from None
    if not -LARGEST_SCORE <= score <= LARGEST_SCORE:  # nan compares false too
        raise DataError(
            f"{where}: the field '{name}' holds {_shown(value)}; a score is a number from {-LARGEST_SCORE:g} to "
            f"{LARGEST_SCORE:g}; correct it or leave the row out."
        )
    return score


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    text = f"'{value}'" if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def write_scores(path: Path, scores: Sequence[float]) -> dict[str, Any]:
    """Writes the scores of a source durably; returns what the manifest says of the file, named from the dataset on."""
    data = np.array(scores, dtype=_DTYPE).tobytes()
    write_atomic(path, data)
    name = "/".join(path.parts[-3:])  # chunks/<key>/<file>
    return {"file": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def score_files(sources: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries of all score files among the sources of a manifest or record."""
    return [source["scores"] for source in sources if source.get("scores")]


def are_scores_there(folder: Path, record: dict[str, Any], *, verify: bool) -> bool:
    """Whether the score files of a record are in the folder of its chunks; ``verify`` compares their hashes."""
    for entry in score_files(record["sources"]):
        path = folder / Path(entry["file"]).name
        try:
            is_sound = path.stat().st_size == entry["size"] and (not verify or sha256_of(path) == entry["sha256"])
        except OSError:
            is_sound = False
        if not is_sound:
            return False
    return True


def read_scores(folder: Path, entry: dict[str, Any]) -> npt.NDArray[np.float64]:
    """The scores in a file of a dataset. Raises DataError where it is gone or damaged."""
    path = folder / entry["file"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: the scores cannot be read ({error.strerror}); {_REMEDY}") from error
    if len(data) != entry["size"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise DataError(f"{path}: these scores are damaged, their hash is wrong; {_REMEDY}")
    return np.frombuffer(data, dtype=_DTYPE)
