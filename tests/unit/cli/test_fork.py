"""``ondevice fork`` as a person types it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from ondevice.cli.fork import parse_count
from ondevice.errors import UsageError
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.liveness import write_status


def test_a_fork_says_what_it_keeps_and_how_to_start(own: Path, call: Any) -> None:
    result = call("fork", "tiny", "--tokens", "+1k", "--name", "more")
    assert result.code == 0, result.err
    assert "more: a fork of tiny at step 12." in result.out
    assert "The optimizer state is kept." in result.out
    assert "Start it with `ondevice train more`." in result.out
    assert max(map(len, result.out.splitlines())) <= 100


def test_json_tells_the_same(own: Path, call: Any) -> None:
    result = call("fork", "tiny", "--at", "best", "--tail", "--json", "--steps", "+3", "--name", "tail")
    body = result.json
    assert body["run"] == "tail" and body["parent"]["run"] == "tiny" and body["optimizer_kept"]
    assert body["recipe"]["train"]["schedule"] == "wsd"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--at", "7"], "no checkpoint of step 7; there are:"),
        (["--at", "soon"], "say a step, 'best' or 'latest'"),
        (["--tokens", "5x"], "--tokens 5x: write a whole number such as 500k, 5M or +5M."),
        (["--tokens", "1"], "the checkpoint has 1,536 already; write --tokens +1 to add to that."),
        (["--tokens", "+1M", "--steps", "+5"], "give only one of them"),
        (["--dense", "0", "--steps", "+5"], "--dense must be at least 1"),
        (["--tokens", "+0"], "--tokens +0: must be more than 0."),
        (["--tokens", "+5000G"], "more than the 1,000,000,000,000 that a run may have"),
        (["--steps", "+2.5"], "--steps +2.5: write a whole number"),
        (["--steps", "+5", "--name", "x" * 120], "at most 100, such as"),
        (["--steps", "+5", "--name", "tiny"], "choose another with --name"),
        ([], "is the last of its run"),
        (["--data", "nowhere", "--steps", "+5"], "nowhere"),
    ],
)
def test_bad_input_is_one_sentence(own: Path, call: Any, flags: list[str], words: str) -> None:
    result = call("fork", "tiny", *flags)
    assert result.code in (2, 3, 4) and words in result.error


@pytest.mark.parametrize(
    ("text", "count"),
    [("5", 5), ("5k", 5_000), ("1.5M", 1_500_000), ("2G", 2 * 10**9), ("1,000", 1000), ("+0.3G", 300_000_000)],
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text, "--tokens") == count


@pytest.mark.parametrize("text", ["", "M", "-5", "+-5", "1e3", "5 M M", "0.5", "1.0001k", "9" * 30])
def test_odd_counts(text: str) -> None:
    with pytest.raises(UsageError, match="write a whole number such as"):
        parse_count(text, "--tokens")


def test_a_damaged_newest_checkpoint_is_passed_over_and_said(own: Path, call: Any) -> None:
    checkpoints = own / "runs/tiny/checkpoints"
    shutil.copytree(checkpoints / "step-00000012", checkpoints / "step-00000013")
    result = call("fork", "tiny", "--steps", "+3", "--name", "child")
    assert result.code == 0 and "Skipped a damaged checkpoint" in result.err and "at step 12." in result.out
    for model in checkpoints.glob("*/model.safetensors"):
        model.write_bytes(model.read_bytes()[:-1] + b"x")
    assert "no checkpoint is left to fork (" in call("fork", "tiny", "--steps", "+3", "--name", "other").error


def test_status_names_the_parent_and_counts_from_it(own: Path, call: Any) -> None:
    assert call("fork", "tiny", "--steps", "+3", "--name", "child").code == 0
    out = call("status", "child").out
    assert "  fork      of tiny at step 12" in out and "not started yet" in out
    assert call("train", "child", "--quiet").code == 0
    assert "  step      15 of 15 (100 %)" in call("status", "child").out


def test_status_shows_why_the_machine_waits(own: Path, call: Any) -> None:
    run = RunDir(own / "runs/tiny")
    why = "disk full: needs 12 MB, 3 MB free"
    lock = RunLock(run)
    try:
        write_status(run, {"heartbeat_t": time.time(), "state": "waiting", "wait": why}, durable=False)
        out = call("status", "tiny").out
        assert f"  wait      {why}" in out and "tiny: waiting" in out
        write_status(run, {"heartbeat_t": time.time(), "state": "running", "wait": None}, durable=False)
        assert "wait" not in call("status", "tiny").out
    finally:
        lock.release()
