"""Quality scores: what is written is read, and damage is never taken for no scores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import CheckpointError, DataError
from ondevice.run.files import write_sealed
from ondevice.run.quality import QUALITY_FILE, read_quality, write_quality


def test_scores_come_back(tmp_path: Path) -> None:
    evals = tmp_path / "evals"
    assert read_quality(evals) == {}
    write_quality(evals, {20: 0.25, 3: -1})
    assert read_quality(evals) == {3: -1.0, 20: 0.25}
    write_quality(evals, {})
    assert read_quality(evals) == {}


@pytest.mark.parametrize("scores", [{1: math.nan}, {1: math.inf}, {-1: 0.5}])
def test_what_is_no_score_is_not_written(tmp_path: Path, scores: dict[int, float]) -> None:
    write_quality(tmp_path, {1: 0.5})
    with pytest.raises(ValueError, match="has the score"):
        write_quality(tmp_path, scores)
    assert read_quality(tmp_path) == {1: 0.5}


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b'{"v": 1, "scores": {}}'),
        lambda path: path.write_bytes(b""),
        lambda path: path.symlink_to("nowhere"),
        lambda path: write_sealed(path, {"v": 1}),
        lambda path: write_sealed(path, {"v": 1, "scores": [1]}),
        lambda path: write_sealed(path, {"v": 1, "scores": {"x": 1.0}}),
        lambda path: write_sealed(path, {"v": 1, "scores": {"-1": 1.0}}),
        lambda path: write_sealed(path, {"v": 1, "scores": {"1": None}}),
        lambda path: write_sealed(path, {"v": 1, "scores": {"1": "high"}}),
        lambda path: write_sealed(path, {"v": 1, "scores": {"1": True}}),
    ],
)
def test_damage_is_one_sentence_with_the_remedy(tmp_path: Path, write: Any) -> None:
    write(tmp_path / QUALITY_FILE)
    with pytest.raises(
        DataError, match=r"quality\.json: .* Delete it; judging the checkpoints again writes it anew\.$"
    ):
        read_quality(tmp_path)


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    write_sealed(tmp_path / QUALITY_FILE, {"v": 2, "scores": {}})
    with pytest.raises(CheckpointError, match="update ondevice"):
        read_quality(tmp_path)
