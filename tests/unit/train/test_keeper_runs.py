"""Whole runs that save in the background, or on a disk that fills: they end as any other run ends."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time

import pytest
import torch

from ondevice.errors import OndeviceError
from ondevice.model import safetensors
from ondevice.run import control
from ondevice.run.files import HashedFile, read_json
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train.launch import launch
from tests.displays import Crash, Silent

OFTEN = ("limits.save_every_steps=2", "limits.keep_last=3")


class Crashing(Silent):
    def say(self, text):
        if text.startswith("step 16:"):
            raise Crash


def wait_for(condition, seconds=30):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def records(run, kind):
    return [record for record in read_records(run.telemetry) if record["kind"] == kind]


def assert_same_end(run, other, step=24):
    for name in ("model", "optimizer"):
        folders = [Store(each.checkpoints).open(step).path / f"{name}.safetensors" for each in (run, other)]
        with safetensors.open_file(folders[0]) as mine, safetensors.open_file(folders[1]) as theirs:
            assert mine.names == theirs.names
            assert all(torch.equal(mine.tensor(key), theirs.tensor(key)) for key in mine.names)
    states = [read_json(Store(each.checkpoints).open(step).path / "state.json") for each in (run, other)]
    for state in states:
        state.pop("train_s")
        state["recipe"].pop("why")  # tells what memory was free
    assert states[0] == states[1]


@pytest.fixture
def straight(make):
    run = make(name="straight")
    assert launch(run, display=Silent()).outcome == "finished"
    return run


def more_than_free_mb(folder):
    """More than is free now, less than the disk could ever have free."""
    usage = shutil.disk_usage(folder)
    return (usage.free + usage.total) // 2 // 2**20


def test_a_run_that_saves_in_the_background_is_the_same_run(make, straight):
    run = make(*OFTEN, "limits.save_in_background=true", name="background")
    assert launch(run, display=Silent()).outcome == "finished"
    assert_same_end(straight, run)
    saves = records(run, "checkpoint")
    assert len(saves) > 3 and saves[-1]["step"] == 24
    assert [save["step"] for save in saves] == sorted({save["step"] for save in saves})
    assert any(save["stall_s"] < save["save_s"] for save in saves)
    store = Store(run.checkpoints)
    assert len(store.complete_steps()) >= 3
    previous = store.open(24).facts["previous"]
    assert previous == {"step": saves[-2]["step"], "sha256": saves[-2]["sha256"]}


def test_a_kill_while_a_copy_is_being_written_loses_nothing(make, straight):
    run = make(*OFTEN, "limits.save_in_background=true", name="killed")
    with pytest.raises(Crash):
        launch(run, display=Crashing())
    assert launch(run, display=Silent()).outcome == "finished"
    assert_same_end(straight, run)


def test_a_disk_that_fills_in_the_middle_of_a_background_save(make, straight, monkeypatch):
    """The copy cannot be written; training waits, and goes on by itself when there is room."""
    monkeypatch.setattr("ondevice.train.loop.ROOM_EVERY_S", 0.2)
    monkeypatch.setattr("ondevice.train.keeper.RETRY_S", 0.5)
    full, real = threading.Event(), HashedFile.write

    def write(file, data):
        if full.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(file, data)

    run = make(*OFTEN, "limits.save_in_background=true", name="filling")
    monkeypatch.setattr(HashedFile, "write", write)
    full.set()
    display = Silent()
    thread = threading.Thread(target=launch, args=(run,), kwargs={"display": display})
    thread.start()
    try:
        wait_for(lambda: read_liveness(run).state == "waiting" and read_status(run).get("wait"))
        held = read_status(run)["step"]
        control.send(run, "limit", {"keep_last": 4}, sender="test")
        wait_for(lambda: records(run, "control"))
        assert read_status(run)["step"] == held, "letters are answered, training stands still"
        full.clear()
    finally:
        full.clear()
        thread.join(60)
    assert not thread.is_alive()
    orders = records(run, "order")
    assert [order["order"] for order in orders[:2]] == ["wait", "go"]
    assert orders[1]["waited_s"] > 0
    assert any("the disk is full" in text for text in display.said)
    assert_same_end(straight, run)
    assert read_status(run)["wait"] is None and read_status(run)["last_error"] is None


def test_stopping_while_the_disk_is_full_tries_once_more_and_says_what_is_lost(make, monkeypatch, tmp_path):
    monkeypatch.setattr("ondevice.train.loop.ROOM_EVERY_S", 0.2)
    run = make(*OFTEN, f"limits.min_free_disk_mb={more_than_free_mb(tmp_path)}", name="stuck")
    errors = []

    def train():
        try:
            launch(run, display=Silent())
        except OndeviceError as error:
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        wait_for(lambda: read_status(run).get("wait"))
        assert read_liveness(run).state == "waiting"
    finally:
        control.send(run, "stop", sender="test")
        thread.join(60)
    assert not thread.is_alive()
    assert "MB are free and a save needs" in str(errors[0])
    (end,) = records(run, "end")
    assert end["outcome"] == "failed" and "MB are free" in end["why"]
    assert read_liveness(run).state == "failed"


def test_an_error_that_is_no_full_disk_is_told_and_training_goes_on(make, monkeypatch):
    run, display = make(*OFTEN, name="eio"), Silent()
    real, failures = HashedFile.write, iter(range(1))

    def write(file, data):
        if next(failures, None) is not None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, data)

    monkeypatch.setattr(HashedFile, "write", write)
    assert launch(run, display=display).outcome == "finished"
    assert any("Input/output error" in text for text in display.said)
    assert records(run, "order") == []
    assert [save["step"] for save in records(run, "checkpoint")] == [24], "not tried again within a minute"


def test_dense_saves_fall_on_their_multiples(make):
    run = make("limits.save_every_steps=5", "limits.keep_every_steps=5", "eval.count=0", name="dense")
    launch(run, display=Silent())
    assert [save["step"] for save in records(run, "checkpoint")] == [5, 10, 15, 20, 24]
    store = Store(run.checkpoints)
    assert (store.steps(), store.complete_steps()) == ([5, 10, 15, 20, 24], [15, 20, 24])
