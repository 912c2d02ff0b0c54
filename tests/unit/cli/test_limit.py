"""``ondevice limit``: limits are shown with their reasons and changed at any moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ondevice.run.config import read_limits
from ondevice.run.directory import RunDir
from ondevice.run.liveness import read_status, write_status


def test_limits_are_shown_with_where_they_come_from(own: Path, call: Any) -> None:
    out = call("limit", "tiny").out
    assert "preset = desk" in out and "max_battery_c = " in out and "keep_last = 3" in out
    body = call("limit", "tiny", "--json").json
    assert body["limits"]["min_free_disk_mb"] == 0 and "max_battery_c" in body["why"]


def test_limits_of_a_simulated_run_are_explained_by_the_preset_that_holds_there(own: Path, call: Any) -> None:
    run_dir = RunDir(own / "runs/tiny")
    status = {key: value for key, value in read_status(run_dir).items() if key not in ("v", "seal")}
    write_status(run_dir, {**status, "simulated": {"device": "sim:galaxy-s25plus", "speed": 60.0}}, durable=False)
    assert "preset = balanced" in call("limit", "tiny").out
    write_status(run_dir, {**status, "simulated": {"device": "sim:gone.toml", "speed": 60.0}}, durable=False)
    assert "preset = desk" in call("limit", "tiny").out


def test_limits_of_a_stopped_run_are_written_and_the_run_stays_sound(own: Path, call: Any) -> None:
    said = call("limit", "tiny", "max_battery_c=38.5", "limits.plugged_only=true", "hours=22:30-06:45").out
    assert "limits.max_battery_c = 38.5 from now on, was 45 by the preset." in said
    assert "limits.plugged_only = yes from now on, was no by the preset." in said
    limits = read_limits(RunDir(own / "runs/tiny").limits)
    assert (limits.max_battery_c, limits.plugged_only, limits.hours) == (38.5, True, "22:30-06:45")
    assert "max_battery_c = 38.5: written by you" in call("limit", "tiny").out
    assert "limits.hours = always by the preset from now on, was 22:30-06:45." in call("limit", "tiny", "hours=").out
    assert "limits.max_rss_mb = 900 from now on, was not given." in call("limit", "tiny", "max_rss_mb=900").out
    assert "None" not in call("limit", "tiny").out
    assert read_limits(RunDir(own / "runs/tiny").limits).hours is None
    assert call("verify", "tiny").code == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("max_batery_c=38", "did you mean 'max_battery_c'?"),
        ("max_battery_c=hot", "must be a number"),
        ("max_battery_c=500", "must be at most 60"),
        ("max_battery_c", "write it as KEY=VALUE"),
        ("hours=25:00-26:00", "25:00"),
        ("preset=wild", "gentle"),
    ],
)
def test_bad_limits_are_one_sentence_and_change_nothing(own: Path, call: Any, change: str, words: str) -> None:
    result = call("limit", "tiny", change)
    assert result.code == 2 and words in result.error
    assert not RunDir(own / "runs/tiny").limits.exists()
