"""Quality scores of a run's checkpoints, in ``evals/quality.json``: one number a step, higher is better.

Written by commands that judge checkpoints, read by retention. A missing file means that nothing was judged yet.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path

from ondevice.errors import DataError
from ondevice.run.files import make_folder, read_sealed, write_error, write_sealed
from ondevice.run.telemetry import as_number

__all__ = ["QUALITY_FILE", "QUALITY_VERSION", "read_quality", "write_quality"]

QUALITY_FILE = "quality.json"
QUALITY_VERSION = 1


def read_quality(evals: Path) -> dict[int, float]:
    """Step -> score from a run's ``evals`` folder. Raises DataError or CheckpointError with the remedy."""
    path = evals / QUALITY_FILE
    if not os.path.lexists(path):
        return {}
    advice = "Delete it; judging the checkpoints again writes it anew."
    try:
        raw = read_sealed(path, version=QUALITY_VERSION).get("scores")
    except DataError as error:
        raise DataError(f"{error} {advice}") from error
    scores = {key: as_number(value) for key, value in raw.items()} if isinstance(raw, dict) else {"": None}
    if not all(key.isdecimal() and value is not None for key, value in scores.items()):
        raise DataError(f"{path}: not a list of scores. {advice}")
    return {int(key): float(value) for key, value in scores.items() if value is not None}


def write_quality(evals: Path, scores: Mapping[int, float]) -> None:
    """Puts the scores on disk, durably and at once. Raises ValueError for a score that is not a finite number,
    ResourceError or DataError when they cannot be written."""
    for step, score in scores.items():
        if step < 0 or not math.isfinite(score):
            raise ValueError(f"step {step} has the score {score}")
    try:
        make_folder(evals)
    except OSError as error:
        raise write_error(evals, error) from error
    body = {str(step): float(score) for step, score in sorted(scores.items())}
    write_sealed(evals / QUALITY_FILE, {"v": QUALITY_VERSION, "scores": body})
