"""Whole runs: what they leave behind, and that an interrupted one ends as if nothing had happened."""

import json
import shutil
import threading
import time

import pytest
import torch

from ondevice.errors import CheckpointError, DataError, RunBusy
from ondevice.model import safetensors
from ondevice.run import control
from ondevice.run.digest import digest
from ondevice.run.directory import RunLock
from ondevice.run.files import read_json
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train.launch import launch, make_loop
from ondevice.train.signals import Signals
from tests.displays import Crash, Silent


class Crashing(Silent):
    """Dies when it is told something that contains ``text``."""

    def __init__(self, text):
        super().__init__()
        self._text = text

    def say(self, text):
        if self._text in text:
            raise Crash
        super().say(text)


class StopAfter(Signals):
    """A signal that arrives once the run has reached a step."""

    def __init__(self, step):
        super().__init__()
        self._step, self.loop = step, None

    @property
    def received(self):
        return "SIGTERM" if self.loop is not None and self.loop.state.step >= self._step else ""

    @received.setter
    def received(self, value):
        pass


def launch_until(run, step):
    """A launch that is asked to stop at ``step``."""
    signals = StopAfter(step)
    loop = make_loop(run, display=Silent(), signals=signals)
    signals.loop = loop
    try:
        return loop.run_to_end()
    finally:
        loop.telemetry.close()


def tensors(run, step=24):
    """Every byte of the weights and of the optimizer."""
    found = {}
    for name in ("model", "optimizer"):
        with safetensors.open_file(Store(run.checkpoints).open(step).path / f"{name}.safetensors") as file:
            found |= {f"{name}:{key}": file.tensor(key).clone() for key in file.names}
    return found


def state(run, step=24):
    """state.json without all that may differ: the time it took, and reasons, which tell what memory was free."""
    raw = read_json(Store(run.checkpoints).open(step).path / "state.json")
    raw.pop("train_s")
    raw["recipe"].pop("why")
    return raw


def curve(run):
    """Losses, samples and evaluations as a reader of the telemetry sees them."""
    story = digest(read_records(run.telemetry))
    samples = [(s["step"], s["prompt"], s["text"]) for s in story.samples]
    return story.loss.points, {name: series.points for name, series in story.val_loss.items()}, samples


def assert_same_run(run, other):
    a, b = tensors(run), tensors(other)
    assert a.keys() == b.keys()
    for key, tensor in a.items():
        assert torch.equal(tensor, b[key]), key
    assert state(run) == state(other)
    assert curve(run) == curve(other)


@pytest.fixture
def finished(make):
    run = make(name="straight")
    assert launch(run, display=Silent()).outcome == "finished"
    return run


def more_than_free_mb(folder):
    """More than is free now, less than the disk could ever have free."""
    usage = shutil.disk_usage(folder)
    return (usage.free + usage.total) // 2 // 2**20


def test_a_finished_run_tells_its_whole_story(finished):
    records = list(read_records(finished.telemetry))
    kinds = [record["kind"] for record in records]
    assert kinds[0] == "launch" and kinds[-1] == "end"
    assert [r["step"] for r in records if r["kind"] == "step"] == list(range(1, 25))
    assert [r["step"] for r in records if r["kind"] == "eval"] == [0, 8, 16, 24]
    assert [r["step"] for r in records if r["kind"] == "sample"] == [12, 24]
    first, last = (next(r for r in order if r["kind"] == "eval") for order in (records, records[::-1]))
    assert set(last["val_loss"]) == {"first", "second"}
    assert last["val_loss_mixed"] < first["val_loss_mixed"] - 0.5
    assert last["val_loss_mixed"] == pytest.approx(sum(last["val_loss"].values()) / 2)
    assert read_liveness(finished).state == "finished"
    assert read_status(finished)["step"] == 24


def test_the_recipe_and_the_fit_are_in_the_checkpoint(finished):
    checkpoint = Store(finished.checkpoints).open(24)
    assert checkpoint.facts["recipe_sha256"] == finished.read_recipe().sha256
    assert checkpoint.facts["fit"] == read_json(finished.fit)
    assert {"torch_version", "cpu_capability", "threads"} <= set(checkpoint.facts)


@pytest.mark.parametrize(
    "changes",
    [
        ("train.optimizer=adamw",),
        ("model.arch=gpt2", "model.dropout=0.1"),
        ("data.order=proportional", "train.precision=bf16"),
    ],
)
def test_a_stopped_run_goes_on_to_the_bit(make, changes):
    straight, stopped = make(*changes, name="straight"), make(*changes, name="stopped")
    launch(straight, display=Silent())
    for step in (5, 11, 16):
        outcome = launch_until(stopped, step)
        assert (outcome.outcome, outcome.step) == ("stopped", step)
        torch.manual_seed(999)  # whatever the process did meanwhile must not matter
    assert launch(stopped, display=Silent()).outcome == "finished"
    assert_same_run(straight, stopped)


@pytest.mark.parametrize("crash_at", ["step 8:", "step 12 sample", "step 24:"])
def test_a_killed_run_goes_on_to_the_bit(make, finished, crash_at):
    run = make(name="killed")
    launch_until(run, 7)
    with pytest.raises(Crash):
        launch(run, display=Crashing(crash_at))
    assert read_liveness(run).state == "killed"
    assert launch(run, display=Silent()).outcome == "finished"
    assert_same_run(finished, run)
    assert digest(read_records(run.telemetry)).kills == 1


def test_a_run_killed_before_its_first_checkpoint_starts_again(make, finished):
    run = make(name="early")
    with pytest.raises(Crash):
        launch(run, display=Crashing("step 8:"))
    assert Store(run.checkpoints).steps() == []
    launch(run, display=Silent())
    assert_same_run(finished, run)


def test_a_damaged_checkpoint_is_passed_over_with_a_word(make, finished):
    run = make(name="damaged")
    launch_until(run, 5)
    launch_until(run, 11)
    weights = run.checkpoints / "step-00000011" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-3] ^= 1
    weights.write_bytes(data)
    display = Silent()
    launch(run, display=display)
    assert "content changed" in display.said[0]
    assert_same_run(finished, run)


def test_no_intact_checkpoint_is_an_error_not_a_new_start(make):
    run = make(name="lost")
    launch_until(run, 5)
    (run.checkpoints / "step-00000005" / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match="no checkpoint is intact"):
        launch(run, display=Silent())


def test_letters_are_obeyed_and_answered(make):
    run = make("train.steps=100000", "eval.count=0", "sample.count=0", name="letters")
    control.send(run, "stop", sender="test")  # from before the launch: expired
    control.send(run, "limit", {"keep_last": 5}, sender="test")
    display = Silent()
    thread = threading.Thread(target=launch, args=(run,), kwargs={"display": display})
    thread.start()
    try:
        wait_for(lambda: read_status(run).get("step", 0) >= 2)
        control.send(run, "pause", sender="test")
        wait_for(lambda: read_liveness(run).state == "waiting")
        held = read_status(run)["step"]
        time.sleep(0.5)
        assert read_status(run)["step"] == held
        control.send(run, "sample", {"prompt": "\ud800"}, sender="test")  # half a character: no tokenizer reads it
        for verb, args in (("sample", {"prompt": "the "}), ("save", {}), ("limit", {"keep_last": "many"})):
            control.send(run, verb, args, sender="test")
        wait_for(lambda: Store(run.checkpoints).steps())  # a held run saves when asked, and goes on waiting
        assert read_liveness(run).state == "waiting"
        control.send(run, "resume", sender="test")
        control.send(run, "pin", {"step": Store(run.checkpoints).steps()[0], "reason": "nice"}, sender="test")
        wait_for(lambda: (run.checkpoints / "pins.json").exists())
    finally:
        control.send(run, "stop", sender="test")
        thread.join(60)
    assert not thread.is_alive()
    records = list(read_records(run.telemetry))
    answers = {(r["verb"], r["ok"]) for r in records if r["kind"] == "control"}
    assert answers == {
        ("stop", False),
        ("limit", True),
        ("pause", True),
        ("sample", True),
        ("save", True),
        ("limit", False),
        ("resume", True),
        ("pin", True),
        ("stop", True),
    }
    assert any(r["kind"] == "sample" and r["prompt"] == "the " for r in records)
    assert any(r["kind"] == "note" and "No sample" in r["text"] for r in records)
    assert read_json(run.limits)["keep_last"] == 5
    assert control.pending(run) == []
    assert list(Store(run.checkpoints).pins().values()) == ["nice"]
    assert read_liveness(run).state == "stopped"


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def test_a_loss_that_explodes_stops_before_the_update_and_keeps_what_was_learned(make):
    run = make("train.lr=1e30", "train.lr_min=0.0", "train.warmup_steps=0", "train.clip=0.0", name="exploding")
    display = Silent()
    outcome = launch(run, display=display)
    assert outcome.outcome == "failed"
    assert "Nothing was written to the weights" in outcome.why
    assert f"at step {outcome.step + 1}" in outcome.why
    assert read_liveness(run).state == "failed"


def test_two_trainers_cannot_hold_one_run(make):
    run = make(name="busy")
    lock = RunLock(run)
    try:
        with pytest.raises(RunBusy, match="pid"):
            launch(run, display=Silent())
    finally:
        lock.release()


def test_a_changed_dataset_is_refused(make, corpus):
    run = make(name="moved")
    manifest = next((run.path.parents[1] / "datasets").glob("*/dataset.json"))
    raw = json.loads(manifest.read_text())
    raw["sha256"] = "0" * 64
    manifest.write_text(json.dumps(raw))
    with pytest.raises(DataError, match="dataset"):
        launch(run, display=Silent())


def test_retention_keeps_the_newest_the_best_and_the_pinned(make):
    run = make("limits.keep_last=2", "eval.count=2", name="kept")
    launch_until(run, 5)
    Store(run.checkpoints).pin(5, "test")
    for step in (6, 7, 8):
        launch_until(run, step)
    assert Store(run.checkpoints).steps() == [5, 7, 8]
    launch(run, display=Silent())
    assert Store(run.checkpoints).steps() == [5, 8, 24]


def test_a_full_disk_makes_training_wait_until_there_is_room(make, monkeypatch, tmp_path):
    monkeypatch.setattr("ondevice.train.loop.ROOM_EVERY_S", 0.5)
    run = make("limits.save_every_s=1e-6", f"limits.min_free_disk_mb={more_than_free_mb(tmp_path)}", name="full")
    display = Silent()
    thread = threading.Thread(target=launch, args=(run,), kwargs={"display": display})
    thread.start()
    try:
        wait_for(lambda: read_liveness(run).state == "waiting")
        wait_for(lambda: read_status(run)["wait"].startswith("disk full: needs "))
        control.send(run, "limit", {"min_free_disk_mb": 0}, sender="test")
    finally:
        thread.join(60)
    assert not thread.is_alive()
    records = list(read_records(run.telemetry))
    assert [r["order"] for r in records if r["kind"] == "order"] == ["wait", "go"]
    assert any("MB are free and a save needs" in text for text in display.said)
    assert records[-1]["outcome"] == "finished"
    status = read_status(run)
    assert (status["wait"], status["last_error"]) == (None, None)


def test_a_run_goes_on_with_the_text_it_began_with(make, corpus, finished):
    """Notes grow. A build of the grown text must not take away what an earlier run was learning."""
    run = make(name="notes")
    launch_until(run, 7)
    with open(corpus / "first.txt", "a") as file:
        file.write("\nand a new line about another dog")
    newer = make(name="newer")
    assert newer.read_recipe().data.dataset_sha256 != run.read_recipe().data.dataset_sha256
    launch(run, display=Silent())
    assert_same_run(finished, run)
    assert launch(newer, display=Silent()).outcome == "finished"


def test_a_diverged_validation_loss_is_said_and_a_checkpoint_still_possible(make):
    run = make(
        "train.lr=1e12", "train.clip=0", "train.warmup_steps=0", "train.optimizer=adamw", "eval.count=25", name="nan"
    )
    display = Silent()
    outcome = launch(run, display=display)
    assert outcome.outcome == "failed"
    assert any("not a finite number" in text for text in display.said)
    assert read_status(run)["step"] == outcome.step


def test_the_best_checkpoint_on_disk_is_kept_though_a_later_best_was_not_saved(make):
    run = make("limits.keep_last=2", "eval.count=2", name="best")
    launch_until(run, 5)
    loop = make_loop(run, display=Silent())
    loop.state.best_step, loop.state.best_loss, loop.state.losses = 4, 0.1, {4: 0.1, 5: 0.2}
    try:
        for _ in range(3):
            loop._step()
            loop._save()
    finally:
        loop.telemetry.close()
    assert Store(run.checkpoints).steps() == [5, 7, 8]
