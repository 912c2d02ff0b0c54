"""The demo plays a recording into files that the very same feed shows."""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import DataError
from ondevice.run import control
from ondevice.run.directory import RunDir
from tui import demo
from tui.demo import Player, Recording, demo_runs
from tui.feed import Feed
from tui.snapshot import RunSnapshot


def until(feed: Feed, holds: Callable[[RunSnapshot], bool], *, seconds: float = 20.0) -> RunSnapshot:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for run in feed.snapshot().runs:
            if holds(run):
                return run
        time.sleep(0.02)
    pytest.fail(f"never came about: {feed.snapshot()}")


def test_the_recording_that_ships_is_a_night_with_kills_and_rests() -> None:
    recording = Recording.read(demo.RECORDING)
    kinds = {record["kind"] for record in recording.records}
    assert {"launch", "step", "eval", "sample", "reading", "order", "checkpoint", "end"} <= kinds
    files = [record["file"] for record in recording.records]
    assert files == sorted(files) and len(set(files)) >= 3
    assert recording.records[-1]["kind"] == "end" and recording.records[-1]["outcome"] == "finished"
    times = [record["sim_t"] for record in recording.records]
    assert times == sorted(times) and 3600 < times[-1] - times[0] < 86_400
    assert demo.RECORDING.stat().st_size < 200_000


def test_the_player_goes_through_kills_to_the_end_and_says_what_it_is(tmp_path: Path) -> None:
    recording = Recording.read(demo.RECORDING)
    span_s = recording.records[-1]["sim_t"] - recording.records[0]["sim_t"]
    player = Player(recording, tmp_path / "night", speed=span_s / 2, dead_s=0.1)
    player.play()
    (run,) = Feed([tmp_path], budget_s=60.0).snapshot().runs
    assert (run.state, run.step, run.trouble) == ("finished", run.steps, ())
    assert run.kills == len({record["file"] for record in recording.records}) - 1 >= 2
    assert "recording" in run.recorded and run.simulated.startswith("sim:")
    heat = run.plots.series("battery_c", x="elapsed", max_points=2000)
    assert heat.xs[-1] > 3600 and max(heat.ys) > 36
    duty = run.plots.series("duty", x="elapsed", max_points=2000)
    assert min(duty.ys) == 0 and any(0 < value < 1 for value in duty.ys)
    losses = run.plots.series("loss_smooth").ys
    assert losses[-1] < losses[0] - 1
    assert run.samples and run.saved and run.limits["hours"] == "22:30-06:45"


def test_demo_runs_are_alive_then_gone() -> None:
    with demo_runs(speed=50.0) as folder:
        feed = Feed([folder])
        run = until(feed, lambda run: run.alive)
        letter = control.send(RunDir(run.path), "pause", sender="a test")
        run = until(feed, lambda run: (ask := run.asked("pause")) is not None and ask.state == "refused")
        ask = run.asked("pause")
        assert ask is not None and ask.id == letter and "recording" in ask.why
    assert not folder.exists()


def test_without_a_folder_for_temporary_files_the_cache_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere() -> Any:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", nowhere)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with demo_runs(speed=50.0) as folder:
        assert folder.is_relative_to(tmp_path / "cache")


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", gzip.compress(b"", mtime=0), gzip.compress(b"{", mtime=0), gzip.compress(b"[]", mtime=0)[:9]],
)
def test_a_damaged_recording_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "demo.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="install ondevice again"):
        Recording.read(path)


def test_a_recording_is_lines_of_records(tmp_path: Path) -> None:
    path = tmp_path / "demo.gz"
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, [{"device": "x"}, {"kind": "step"}])).encode()))
    assert Recording.read(path).records == [{"kind": "step"}]
