"""A launch that ends by something other than the loop or a kill has last words too."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from ondevice.errors import DataError, ResourceError
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.postmortem import examine
from ondevice.run.telemetry import read_records
from ondevice.train.engine import Engine
from ondevice.train.launch import launch
from tests.displays import Silent


def fail_with(monkeypatch, error, *, after=5):
    """Every micro-batch after some raises ``error``."""
    real, count = Engine.accumulate, 0

    def accumulate(*args):
        nonlocal count
        count += 1
        if count > after:
            raise error
        return real(*args)

    monkeypatch.setattr(Engine, "accumulate", accumulate)


def last(run):
    return list(read_records(run.telemetry))[-1]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
    ],
    ids=["python", "torch"],
)
def test_memory_that_was_refused_is_a_death_with_a_cause_and_the_next_launch_shrinks(make, monkeypatch, error):
    run = make("eval.count=0", "sample.count=0", name="refused")
    with monkeypatch.context() as patch:
        fail_with(patch, error)
        with pytest.raises(ResourceError, match="not enough memory after step 2; `ondevice train refused`"):
            launch(run, display=Silent())
    assert read_liveness(run).state == "killed"
    death = examine(run)
    assert death is not None and (death.cause, death.step) == ("memory", 2)
    assert launch(run, display=Silent()).outcome == "finished"
    assert next(r for r in read_records(run.telemetry) if r["kind"] == "fit")["new"]["micro_batch"] == 2


def test_a_bug_ends_the_run_as_failed_so_that_nobody_restarts_it(make, monkeypatch):
    run = make("eval.count=0", "sample.count=0", name="bug")
    fail_with(monkeypatch, RuntimeError("shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        launch(run, display=Silent())
    assert read_liveness(run).state == "failed"
    assert (last(run)["outcome"], last(run)["why"]) == ("failed", "a bug in ondevice (RuntimeError: shapes differ)")


def test_an_error_before_the_first_step_is_told_once(make, monkeypatch):
    run = make(name="early")

    def refuse(*args, **kwargs):
        raise DataError("the tokens are damaged.")

    monkeypatch.setattr("ondevice.train.begin.BatchCursor.of", refuse)
    with pytest.raises(DataError):
        launch(run, display=Silent())
    assert [r["outcome"] for r in read_records(run.telemetry) if r["kind"] == "end"] == ["failed"]
    assert read_status(run)["phase"] == "start"


def test_a_second_ctrl_c_leaves_at_once_and_is_no_kill(make, monkeypatch):
    run = make("train.steps=100000", "eval.count=0", "sample.count=0", name="hasty")
    monkeypatch.setattr("ondevice.train.desk.Desk._read_inbox", lambda *args: None)  # too busy to notice the first

    def interrupt():
        until = time.monotonic() + 60
        while read_status(run).get("step", 0) < 1 and time.monotonic() < until:
            time.sleep(0.02)
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        launch(run, display=Silent())
    thread.join()
    assert read_liveness(run).state == "stopped"
    assert "asked twice" in last(run)["why"]
    assert examine(run) is None
