"""Following a run, and bringing it back: what is restarted, what is left alone, and who may do it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ondevice.cli import revive
from ondevice.cli.revive import MOST_DEATHS, Reviver, WatchLock, judge, wait_before
from ondevice.model import safetensors
from ondevice.run.directory import RunDir, RunLock, lock_holder
from ondevice.run.liveness import read_liveness, read_status, write_status
from ondevice.run.store import Store
from ondevice.run.telemetry import TelemetryWriter


def tell(run, *, launch=1, **kinds):
    writer = TelemetryWriter(run.telemetry, launch)
    writer.write("launch", 0, launch=launch)
    for kind, fields in kinds.items():
        writer.write(kind, 3, **fields)
    writer.close()


def sign(run, *, launch=1, age_s=1_000.0, **more):
    status = {"launch": launch, "step": 3, "steps": 12, "heartbeat_t": time.time() - age_s, "phase": "step", **more}
    write_status(run, status, durable=False)


@pytest.fixture
def killed(fresh):
    """A run whose trainer died a while ago."""
    run = RunDir(fresh)
    tell(run)
    sign(run)
    return run


@pytest.fixture
def no_trainer(monkeypatch):
    """Fails the test where anything is started."""
    monkeypatch.setattr(revive.subprocess, "Popen", lambda *a, **k: pytest.fail("a trainer was started"))


@pytest.fixture
def fake_trainer(tmp_path, monkeypatch):
    """``fake_trainer(body)``: what is started instead of Python; its output goes where the trainer's does."""

    def make(body):
        path = tmp_path / "trainer"
        path.write_text(f"#!{sys.executable}\nimport os, sys, time\n{body}\n")
        path.chmod(0o755)
        monkeypatch.setattr(revive.sys, "executable", str(path))

    return make


def weights(run, step):
    with safetensors.open_file(Store(run.checkpoints).open(step).path / "model.safetensors") as file:
        return {name: file.tensor(name).numpy().tobytes() for name in file.names}


def test_a_run_killed_by_sigkill_is_brought_back_and_ends_as_if_nothing_had_happened(place, call, monkeypatch):
    monkeypatch.setattr(revive, "FIRST_WAIT_S", 0.0)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    flags = ["--set", "train.steps=240", "--set", "limits.save_every_steps=40", "--set", "sample.count=0", "--quiet"]
    runs = RunDir(place / "home/runs/straight"), RunDir(place / "home/runs/killed")
    assert call("train", "tiny.toml", *flags, "--name", "straight").code == 0
    trainer = subprocess.Popen(
        [sys.executable, "-m", "ondevice", "train", "tiny.toml", *flags, "--name", "killed"],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    try:
        until = time.monotonic() + 120
        while read_status(runs[1]).get("step", 0) < 40:
            assert time.monotonic() < until and trainer.poll() is None
            time.sleep(0.01)
    finally:
        trainer.kill()
        trainer.wait()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    result = call("watch", "killed", "--restart", "--interval", "1")
    assert result.code == 0, result
    assert "started again." in result.out and result.out.splitlines()[-1].endswith("every planned step is done.")
    assert weights(runs[0], 240) == weights(runs[1], 240)
    status = call("status", "killed", "--json").json
    assert (status["kills"], status["launches"], status["state"]) == (1, 2, "finished")


@pytest.mark.parametrize(
    ("end", "code"),
    [({"outcome": "finished", "why": "done"}, 0), ({"outcome": "stopped"}, 0), ({"outcome": "failed"}, 1)],
)
def test_what_ended_with_a_word_is_not_started_again(fresh, call, no_trainer, end, code):
    run = RunDir(fresh)
    tell(run, end=end)
    result = call("watch", "tiny", "--restart")
    assert result.code == code and f"{end['outcome']} at step 3" in result.out
    assert call("watch", "--all", "--once", "--restart").code == 0


def test_a_run_that_was_paused_when_it_was_killed_stays_paused(killed, call, no_trainer):
    sign(killed, hold="paused by command line")
    result = call("watch", "tiny", "--restart")
    assert result.code == 0
    assert "killed while it was paused by command line; `ondevice train tiny` lets it go on." in result.out


def test_a_new_run_and_one_that_sleeps_are_not_started(fresh, call, no_trainer):
    run = RunDir(fresh)
    assert "made, not started yet" in call("watch", "tiny", "--once", "--restart").out
    tell(run)
    sign(run)
    lock = RunLock(run)
    os.utime(run.lock, (1.0, 1.0))
    assert call("watch", "tiny", "--once", "--restart").out.split(" ", 1)[1].startswith("asleep ")
    lock.release()


def test_watching_a_killed_run_says_how_it_died(killed, call, no_trainer):
    result = call("watch", "tiny")
    assert result.code == 1
    assert "killed at step 3, by whom cannot be told" in result.out


def test_two_watchers_of_one_run(killed, call, no_trainer):
    lock = WatchLock(killed)
    result = call("watch", "tiny", "--restart")
    assert result.code == 7 and f"(ondevice watch, pid {os.getpid()})" in result.error
    assert call("watch", "tiny").code == 1  # watching alone needs no right
    once = call("watch", "--all", "--once", "--restart", "--json")
    assert once.code == 0
    (line,) = once.out.splitlines()
    assert json.loads(line)["event"] == "trouble" and "already brings this run back" in line
    lock.release()
    lock.release()


def test_pauses_between_tries_grow_and_end():
    assert [wait_before(deaths) for deaths in range(9)] == [10, 10, 20, 40, 80, 160, 320, 600, 600]


def test_a_fresh_death_waits_and_an_old_one_does_not(killed):
    assert judge(killed).do == "start"
    sign(killed, age_s=4.0)
    verdict = judge(killed)
    assert verdict.do == "wait" and 5.0 < verdict.wait_s <= 6.0
    tell(killed, launch=2)
    tell(killed, launch=3)
    sign(killed, launch=3, age_s=15.0)
    assert 20.0 < judge(killed).wait_s <= 25.0
    sign(killed, launch=3, age_s=-9_000.0)  # the clock was set back
    assert judge(killed).do == "start"


def test_deaths_that_saved_nothing_are_given_up_and_progress_forgives(killed, call, no_trainer):
    for launch in range(2, MOST_DEATHS + 1):
        tell(killed, launch=launch)
    result = call("watch", "tiny", "--restart")
    assert result.code == 1
    assert f"gave up: {MOST_DEATHS} launches in a row were killed before they saved anything" in result.error
    tell(killed, launch=MOST_DEATHS + 1, checkpoint={})
    assert judge(killed).do in ("start", "wait")


def test_a_trainer_that_refuses_is_not_started_again_and_again(killed, call, fake_trainer):
    fake_trainer("print('error: the dataset changed.', file=sys.stderr); sys.exit(3)")
    result = call("watch", "tiny", "--restart", "--interval", "1")
    assert result.code == 1
    assert result.error == "tiny: gave up: its trainer does not start (exit code 3): the dataset changed."
    assert result.out.count("started again") == 1


def test_the_trainer_is_told_to_keep_the_hold_and_outlives_the_watcher(killed, call, fake_trainer, tmp_path):
    fake_trainer("print(sys.argv[1:], os.getsid(0) == os.getpid()); sys.stdout.flush(); time.sleep(1.0)")
    reviver = Reviver(killed)
    assert reviver.look().do == "start"
    assert reviver.starting and reviver.look() == revive.Verdict(do="wait", why="its trainer is starting", wait_s=1.0)
    reviver.close()
    log = killed.logs / "trainer.log"
    until = time.monotonic() + 30
    while not log.read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    wanted = ["-m", "ondevice", "train", str(killed.path), "--keep-hold", "--quiet"]
    assert log.read_text() == f"{wanted} True\n"


def test_starts_that_die_without_a_trace_are_counted(killed, fake_trainer, monkeypatch):
    fake_trainer("os.kill(os.getpid(), 9)")
    monkeypatch.setattr(revive, "MOST_DEATHS", 3)
    reviver = Reviver(killed)
    said = []
    for _ in range(5):
        said.append(reviver.look().do)
        reviver.await_start()
    reviver.close()
    assert said == ["start", "start", "give up", "give up", "give up"]


def test_one_pass_over_all_runs(killed, call, fake_trainer):
    other = RunDir(killed.path.with_name("other"))
    shutil.copytree(killed.path, other.path)
    (other.telemetry / "0001.jsonl").unlink()
    tell(other, end={"outcome": "stopped", "why": "asked"})
    fake_trainer("sys.exit(0)")
    result = call("watch", "--all", "--once", "--restart", "--json")
    assert result.code == 0
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [(line["run"], line["event"]) for line in lines] == [("other", "end"), ("tiny", "restart")]
    assert '"event": "restart"' in result.out  # the words that scripts look for
    assert call("watch", "--all", "--once").out.split("other: ")[1].startswith("stopped at step 3: asked.")


def test_a_phone_takes_up_one_run_at_a_time(killed, call, monkeypatch, no_trainer):
    monkeypatch.setattr(revive, "on_android", lambda _: True)
    other = RunDir(killed.path.with_name("other"))
    shutil.copytree(killed.path, other.path)
    lock = RunLock(other)
    verdict = judge(killed)
    lock.release()
    assert verdict.do == "wait" and verdict.why.startswith("other is training")
    assert judge(killed).do == "start"


def test_a_line_for_each_change_and_none_for_nothing(killed, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lock = RunLock(killed)

    def beat(**more):
        sign(killed, age_s=0.0, loss=3.5, **{"state": "running", **more})

    def end():
        lock.release()
        tell(killed, launch=2, end={"outcome": "finished", "why": "done"})

    changes = [
        lambda: beat(saved_step=3),
        lambda: beat(saved_step=3, eta_s=17),
        lambda: beat(saved_step=3, tok_s=5.0),
        lambda: beat(saved_step=3, state="waiting", hold="paused by somebody"),
        end,
    ]
    monkeypatch.setattr("ondevice.cli.watch.time.sleep", lambda s: changes.pop(0)())
    beat()
    result = call("watch", "tiny")
    assert result.code == 0
    lines = [line.split(" ", 1)[1] for line in result.out.splitlines()]
    assert lines == [
        " 25%  step 3/12  loss 3.500",
        " 25%  step 3/12  loss 3.500",
        "waiting  25%  step 3/12",
        "finished at step 3: done.",
    ]
    assert max(map(len, result.out.splitlines())) <= 40


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_the_watch_says_that_the_trainer_goes_on(killed, number):
    lock = RunLock(killed)
    sign(killed, age_s=0.0, state="running")
    watcher = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "ondevice", "watch", "tiny", "--restart"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert "step 3/12" in watcher.stdout.readline()
    watcher.send_signal(number)
    _, err = watcher.communicate(timeout=30)
    lock.release()
    assert watcher.returncode == 130
    said = next(line for line in err.splitlines() if line.startswith("error:"))
    holder = f"(trainer pid {os.getpid()})"
    assert said == f"error: No longer watching. tiny: the trainer goes on {holder}; `ondevice stop tiny` ends it."
    assert " torch" not in err  # it answers at once


def test_what_to_watch_must_be_said(reading, call):
    assert "--all for every run" in call("watch").error
    assert call("watch", "tiny", "--all").code == 2
    assert call("watch", "tiny", "--interval", "0").code == 2
    assert lock_holder(RunDir(reading / "runs/tiny")) is None
    assert read_liveness(RunDir(reading / "runs/tiny")).state == "finished"
    assert not (reading / "runs/tiny/watch.lock").exists()
