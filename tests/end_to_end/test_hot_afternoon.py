"""Twenty minutes of a hot afternoon on a simulated phone: it is unplugged, goes half blind and is killed, and learns
what it would have learned in peace."""

from __future__ import annotations

import itertools
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ondevice.cli.main import main
from ondevice.device.simulate_wish import FASTEST
from ondevice.run.directory import RunDir
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.store import Store
from ondevice.run.telemetry import launch_files, read_file

LIMIT_C = 39.0  # the warmest battery of preset balanced, which a phone gets
UNPLUGGED_S, BLIND_S = 500, 800
PHONE = f"sim:galaxy-s25plus,ambient=26..36@1200,percent=60,threads=2,unplug@{UNPLUGGED_S},lose=battery_c@{BLIND_S}"
STEPS = 80
RECIPE = f"""
[tokenizer]
kind = "byte"
[model]
layers = 2
width = 32
heads = 2
context = 32
[train]
steps = {STEPS}
batch = 4
lr = 3e-3
precision = "fp32"
[eval]
count = 3
max_tokens = 512
[sample]
count = 1
max_new_tokens = 4
[fit]
micro_batch = 2
threads = 1
[limits]
fixed_fit = true
save_every_s = 120
min_free_disk_mb = 0
"""


@pytest.fixture
def place(tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("ONDEVICE_RELAUNCHED", raising=False)
    (tmp_path / "afternoon.toml").write_text(RECIPE, "utf-8")
    return tmp_path


def words(place: Path, text: Path, name: str, device: str = "", speed: float = 1) -> list[str]:
    said = ["train", str(place / "afternoon.toml"), "--data", str(text), "--name", name, "--quiet"]
    return said + (["--device", device, "--speed", f"{speed:g}"] if device else [])


def run_dir(place: Path, name: str) -> RunDir:
    return RunDir(place / "home" / "runs" / name)


def weights(run: RunDir) -> list[bytes]:
    """Of the last step, to which the run came."""
    steps = run.read_recipe().train.steps
    folder = Store(run.checkpoints).open(steps).path
    return [(folder / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")]


def last_line(story: Path) -> dict[str, Any]:
    for line in reversed(story.read_bytes().splitlines() if story.exists() else []):
        try:
            return dict(json.loads(line))
        except ValueError:
            continue
    return {}


def kill_when(child: subprocess.Popen[bytes], run: RunDir, story: Path, sim_t: float) -> None:
    """SIGKILL once its own story shows that time (at its launch record, where that is past) and something was saved."""
    until = time.monotonic() + 120
    while True:
        assert child.poll() is None, f"it ended with {child.returncode} before it was killed"
        assert time.monotonic() < until, "its time to be killed never came"
        if last_line(story).get("sim_t", 0.0) >= sim_t and Store(run.checkpoints).steps():
            break
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert child.wait(30) == -signal.SIGKILL


def launch_and_kill(place: Path, text: Path, device: str, speed: float, *, after_s: float) -> None:
    run = run_dir(place, "hot")
    story = run.telemetry / f"{run.next_launch():04d}.jsonl"
    began_t = next((r["sim"]["began_t"] for r in _readings(run)), time.time())
    with subprocess.Popen(
        [sys.executable, "-m", "ondevice", *words(place, text, "hot", device, speed)], stdout=subprocess.DEVNULL
    ) as child:
        try:
            kill_when(child, run, story, began_t + after_s)
        finally:
            child.kill()
    assert read_liveness(run).state == "killed"


def _readings(run: RunDir) -> list[dict[str, Any]]:
    return [r for path in launch_files(run.telemetry) for r in read_file(path) if r["kind"] == "reading"]


def speed_at_which(calm: RunDir, *, step_s: float) -> float:
    """A step takes the phone so long at least, however fast this processor is."""
    story = [record for path in launch_files(calm.telemetry) for record in read_file(path)]
    return min(FASTEST, step_s / min(record["step_s"] for record in story if record["kind"] == "step"))


def assert_governed(run: RunDir, kills: int) -> None:
    """The governor acted, the phone stayed under its limit, and what was lost was noticed."""
    story = [record for path in launch_files(run.telemetry) for record in read_file(path)]
    assert all(b["sim_t"] >= a["sim_t"] for a, b in itertools.pairwise(story)), "its clock never goes back"
    assert story[-1]["sim_t"] - story[0]["sim_t"] >= 20 * 60, "it was an afternoon of twenty minutes"
    launches = [record for record in story if record["kind"] == "launch"]
    assert len(launches) == kills + 1
    assert [(record["previous"] or {}).get("outcome") for record in launches[1:]] == ["killed"] * kills
    assert all(record["resumed_step"] for record in launches[1:]), "it went on from a checkpoint"
    orders = [record for record in story if record["kind"] == "order"]
    assert any(record["order"] == "run" and record["duty"] < 0.5 for record in orders), "heat took duty"
    assert all(record["why"] for record in orders)
    readings = [record for record in story if record["kind"] == "reading"]
    hottest_c = max(record["sim"]["hottest_battery_c"] for record in readings)
    assert LIMIT_C - 2.0 < hottest_c <= LIMIT_C + 0.5
    assert readings[0]["plugged"] and not readings[-1]["plugged"]
    assert readings[0]["battery_c"] is not None and readings[-1]["battery_c"] is None
    told = [record["text"] for record in story if record["kind"] == "note"]
    assert any("temperature of the battery can no longer be read (lost" in text for text in told)
    assert read_status(run)["simulated"]["device"].startswith("sim:galaxy-s25plus")


def test_a_hot_afternoon_leaves_no_trace_in_the_weights(place: Path, text: Path) -> None:
    device = f"{PHONE},piece=2"
    assert main(words(place, text, "calm")) == 0
    launch_and_kill(place, text, device, 500, after_s=UNPLUGGED_S + 60)
    assert main(words(place, text, "hot", device, 500)) == 0
    hot, calm = run_dir(place, "hot"), run_dir(place, "calm")
    assert_governed(hot, kills=1)
    assert weights(hot) == weights(calm)
    assert not any("sim_t" in record for path in launch_files(calm.telemetry) for record in read_file(path))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_again_and_again_in_a_time_that_goes_by_the_processor(place: Path, text: Path) -> None:
    (place / "afternoon.toml").write_text(RECIPE.replace(f"steps = {STEPS}", "steps = 500"), "utf-8")
    rng, device = random.Random(), PHONE.replace("..36@", "..32@")
    assert main(words(place, text, "calm")) == 0
    # On every processor it then does about a third of its steps in twenty minutes, and all of them on one battery.
    speed = speed_at_which(run_dir(place, "calm"), step_s=1.0)
    for minute in (4, 8, 12, 16):
        launch_and_kill(place, text, device, speed, after_s=60 * minute + rng.uniform(0, 60))
    assert main(words(place, text, "hot", device, speed)) == 0
    hot = run_dir(place, "hot")
    assert_governed(hot, kills=4)
    assert weights(hot) == weights(run_dir(place, "calm"))
