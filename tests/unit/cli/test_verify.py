"""``ondevice verify``: lines, verdict and exit codes, of runs that were really trained."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ondevice.run.directory import RunDir, RunLock
from ondevice.run.store import Store


def run_in(home: Path) -> RunDir:
    return RunDir(home / "runs" / "tiny")


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def test_a_sound_run(reading, call):
    result = call("verify", "tiny")
    assert result.code == 0
    lines = result.out.splitlines()
    assert all(line.startswith(("ok ", "note ")) for line in lines[:-1])
    assert lines[-1].startswith("tiny: sound, ")
    for word in ("run.json", "telemetry/0001.jsonl", "checkpoints/step-00000012", "chunks", "command: "):
        assert word in result.out


def test_what_is_for_packages_is_not_left_undone_in_silence(reading, call):
    result = call("verify", "tiny", "--again")
    assert result.code == 2 and "--again and --base are for packages" in result.error


def test_json(reading, call):
    result = call("verify", "tiny", "--json").json
    assert (result["run"], result["sound"], result["replay"]) == ("tiny", True, None)
    assert {finding["level"] for finding in result["findings"]} <= {"ok", "note"}


def test_no_torch(reading):
    code = "import sys; from ondevice.cli.main import main; code = main(['verify', 'tiny']); "
    code += "sys.exit(code or 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", ["run.json", "recipe.json", "checkpoints/step-00000012/state.json", "telemetry/0001.jsonl"]
)
def test_damage_is_told_with_what_to_do(own, call, name):
    spoil(run_in(own).path / name)
    result = call("verify", "tiny")
    assert result.code == 4
    assert any(line.startswith("damage  ") for line in result.out.splitlines())
    assert "`ondevice doctor tiny` mends what it can" in result.out
    assert call("verify", "tiny", "--json").json["sound"] is False


def test_a_run_without_its_identity_is_found_by_name_and_path(own, call):
    run_in(own).identity.unlink()
    assert call("verify", "tiny").code == 4
    assert call("verify", run_in(own).path).code == 4
    assert call("verify", "tinny").code == 2


def test_a_missing_dataset_is_a_note_and_a_damaged_one_is_damage(own, call):
    chunk = next((own / "datasets").glob("*/chunks/*/*train*.chunk"))
    spoil(chunk)
    result = call("verify", "tiny")
    assert (result.code, str(chunk) in result.out) == (4, True)
    assert f"`ondevice data build {run_in(own).config}` makes it again" in result.out
    shutil.rmtree(own / "datasets")
    result = call("verify", "tiny")
    assert result.code == 0
    assert "the dataset is not on this machine" in result.out


@pytest.mark.parametrize("pattern", ["*/chunks/*/*train*.chunk", "*/dataset.json"])
def test_the_named_command_mends_a_damaged_dataset(own, call, pattern):
    spoil(next((own / "datasets").glob(pattern)))
    assert call("verify", "tiny").code == 4
    assert call("data", "build", run_in(own).config).code == 0
    assert call("verify", "tiny").code == 0


def test_exports_are_re_checked(own, call):
    assert call("export", "tiny").code == 0
    assert "exports/onnx-00000012: every file as exported" in call("verify", "tiny").out
    spoil(next(run_in(own).exports.glob("*/model.onnx*")))
    result = call("verify", "tiny")
    assert result.code == 4 and "`ondevice export tiny --overwrite`" in result.out


def test_it_takes_no_lock_and_writes_nothing(own, call):
    before = {path: path.stat().st_mtime_ns for path in own.rglob("*") if path.is_file()}
    lock = RunLock(run_in(own))
    try:
        assert call("verify", "tiny").code == 0
    finally:
        lock.release()
    after = {path: path.stat().st_mtime_ns for path in own.rglob("*") if path.is_file()}
    assert {path for path in after if before.get(path) != after[path]} <= {run_in(own).lock}


def test_a_replay_needs_two_checkpoints(reading, call):
    if len(Store(run_in(reading).checkpoints).steps()) < 2:
        result = call("verify", "tiny", "--replay")
        assert result.code == 2 and "there are 1" in result.error


def test_replay(place, call):
    assert call("train", "tiny.toml", "--quiet", "--set", "limits.save_every_steps=5").code == 0
    result = call("verify", "tiny", "--replay")
    assert result.code == 0
    assert "ok      replayed steps 10..12: identical" in result.out
    body = call("verify", "tiny", "--replay", "--json").json
    assert (body["replay"]["identical"], body["replay"]["first"], body["sound"]) == (True, 10, True)
