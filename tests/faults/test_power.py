"""Power cuts on real file systems (root only, slow), and what can be shown of them without root."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ondevice.run.directory import RunDir
from ondevice.run.store import Store
from tools.faults import power
from tools.faults.power_disk import FILE_SYSTEMS, Disk, missing
from tools.faults.power_history import History
from tools.faults.victim import content, environment, make_run


def live(run: RunDir, history: History, *, lines: int, seed: str) -> None:
    """A life of the victim, killed after so many words."""
    words = [sys.executable, "-B", "-s", "-m", "tools.faults.victim_power", str(run.path), seed]
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment()) as child:
        assert child.stdout is not None
        for _ in range(lines):
            history.heard(child.stdout.readline())
        child.kill()
        for line in child.stdout.read().splitlines(keepends=True):
            if line.endswith(b"\n"):
                history.heard(line)


@pytest.fixture
def lived(tmp_path: Path) -> tuple[RunDir, History]:
    run, history = make_run(tmp_path / "run"), History()
    live(run, history, lines=60, seed="a")
    return run, history


def test_what_was_called_durable_survives_kills(lived: tuple[RunDir, History]) -> None:
    run, history = lived
    assert len(history.saved) >= 3 and history.positions
    for seed in "bcd":
        verdict = history.kept(run)
        assert verdict.losses == [] and verdict.silent == []
        live(run, history, lines=random.Random(seed).randrange(1, 40), seed=seed)
    assert len(history.positions) >= 2, "the story of each launch is in a file of its own"


def test_losses_are_noticed(lived: tuple[RunDir, History], tmp_path: Path) -> None:
    run, history = lived
    store = Store(run.checkpoints)
    newest = store.steps()[-1]
    shutil.rmtree(store.path(newest))
    story = run.telemetry / "0001.jsonl"
    story.write_bytes(story.read_bytes()[:-200])
    history.pins, history.status = [{1: "never"}], ["never"]
    history.others.add("other-9-9")
    losses = "\n".join(history.kept(run).losses)
    for word in (
        f"checkpoint {newest} was durable and is gone",
        "less of the story",
        "pins: ",
        "status: ",
        "other-9-9",
    ):
        assert word in losses


def test_another_content_that_verifies_is_silent(lived: tuple[RunDir, History]) -> None:
    run, history = lived
    store = Store(run.checkpoints)
    with store.draft(10_000) as draft:
        with draft.file("state.json") as file:
            file.write(content("state.json", 3))
        history.saved[10_000] = draft.commit({}).sha256
    assert any("step-00010000" in word for word in history.kept(run).silent)


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_a_disk_is_gone_after_use(kind: str, tmp_path: Path) -> None:
    if missing(kind):
        pytest.skip(missing(kind))
    with pytest.raises(ZeroDivisionError), Disk(tmp_path, kind) as disk:
        (disk.path / "lost").write_text("never synced")
        disk.cut()
        disk.restart()
        assert not (disk.path / "lost").exists() or not (disk.path / "lost").read_text()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_nothing_durable_is_lost_in_power_cuts(kind: str, tmp_path: Path) -> None:
    if missing(kind):
        pytest.skip(missing(kind))
    made = power.cuts(kind, tmp_path, trials=40, dice=random.Random(1))
    assert made.words == []
    assert made.trials == 40 and made.acts["save"] > 5
    blind = power.control(kind, tmp_path, trials=6, dice=random.Random(2))
    assert blind.losses >= 3, "without fsync much is lost: the cuts bite"
