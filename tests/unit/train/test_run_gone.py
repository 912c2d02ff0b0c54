"""A run's folder that is moved or deleted while it trains: it ends with a sentence, and no second run comes to be."""

from __future__ import annotations

import shutil
import threading

import pytest

from ondevice.run.directory import RunDir, RunGone
from ondevice.run.liveness import read_liveness
from ondevice.train import keeper
from ondevice.train.chain import train
from ondevice.train.checkpoint import write
from tests.displays import Silent


class Disturbs(Silent):
    """Does something to the run at its first status of step 6 or later."""

    def __init__(self, deed):
        super().__init__()
        self._deed = deed

    def status(self, status):
        super().status(status)
        if self._deed is not None and status.get("step", 0) >= 6:
            deed, self._deed = self._deed, None
            deed()


def deleted(folder):
    """As a person deletes it, who tries again where something was just written into it."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    raise AssertionError(f"{folder} comes back each time it is deleted")


@pytest.fixture(params=["make", "make_chain"])
def run(request):
    return request.getfixturevalue(request.param)("limits.save_every_steps=4")


def test_a_run_that_was_moved_goes_on_where_it_lies(run, tmp_path):
    moved = RunDir(tmp_path / "elsewhere")
    display = Disturbs(lambda: run.path.rename(moved.path))
    with pytest.raises(RunGone, match=r"tiny: this folder was moved or deleted .* goes on from the newest checkpoint"):
        train(run, display=display)
    assert not run.path.exists()
    assert read_liveness(moved).state == "failed"
    outcome = train(moved, display=Silent())
    assert outcome.outcome == "finished" and outcome.step == moved.read_recipe().train.steps


def test_a_run_that_was_deleted_stays_so(run):
    with pytest.raises(RunGone):
        train(run, display=Disturbs(lambda: shutil.rmtree(run.path)))
    assert not run.path.exists()


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("deed", ["move", "delete"])
def test_a_save_that_has_begun_does_not_bring_its_folder_back(make, tmp_path, monkeypatch, background, deed):
    moved = tmp_path / "elsewhere"
    run = make("limits.save_every_steps=4", f"limits.save_in_background={str(background).lower()}")
    threads = []

    def write_late(store, frozen):
        threads.append(threading.current_thread())
        if run.path.exists():
            run.path.rename(moved) if deed == "move" else deleted(run.path)
        return write(store, frozen)

    monkeypatch.setattr(keeper, "write", write_late)
    with pytest.raises(RunGone):
        train(run, display=Silent())
    assert (threads[0] is not threading.main_thread()) is background
    assert not run.path.exists()
    assert moved.exists() is (deed == "move")


def test_another_run_in_its_place_is_left_alone(make):
    run, other = make("train.steps=24", "eval.count=12", "limits.save_every_steps=4"), make(name="other")

    def swap():
        run.path.rename(run.path.with_name("moved"))
        other.path.rename(run.path)

    papers = {path.name for path in other.path.iterdir()}
    with pytest.raises(RunGone):
        train(run, display=Disturbs(swap))
    assert {path.name for path in run.path.iterdir()} <= papers | {"status.json"}
    assert not list(run.checkpoints.iterdir())
