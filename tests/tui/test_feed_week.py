"""A week of a million records: what the bench measures, with room for a busy machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tools.bench.feed import make_week

BENCH = Path(__file__).parents[2] / "tools" / "bench" / "feed.py"


def measured(folder: Path) -> dict[str, float]:
    command = [sys.executable, "-P", str(BENCH), "--part", "read", "--folder", str(folder)]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def test_memory_and_points_stay_bounded_and_kills_are_counted(tmp_path: Path) -> None:
    make_week(tmp_path / "week", 60_000)
    found = measured(tmp_path / "week")
    assert (found["state"], found["kills"]) == ("killed", 5)
    assert found["loss_points"] <= 32_768
    assert found["peak_rss_mb"] < 100


@pytest.mark.slow
def test_a_week_is_painted_at_once_and_read_in_seconds(tmp_path: Path) -> None:
    make_week(tmp_path / "week", 1_000_000)
    found = measured(tmp_path / "week")
    assert found["first_paint_s"] < 1.5
    assert found["cpu_s"] < 6.0
    assert found["peak_rss_mb"] < 150
    assert found["six_plots_ms"] < 200
