"""The keeper: when a save is due, what a full disk does, and saving in the background."""

from __future__ import annotations

import errno
import os
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from ondevice.device.readings import Reading
from ondevice.errors import ResourceError
from ondevice.run.files import HashedFile, read_json
from ondevice.run.quality import write_quality
from ondevice.run.recipe import Fit
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.run.telemetry import TelemetryWriter
from ondevice.train import keeper as keeper_module
from ondevice.train.keeper import Keeper, Origin
from ondevice.train.state import TrainState

RECIPE = SimpleNamespace(
    sha256="r", to_json=lambda: {"whole": "recipe"}, train=SimpleNamespace(optimizer_state="adamw-fp32", compile=False)
)
FIT = Fit(micro_batch=1, threads=1, activation_checkpointing=False, loss_chunk_tokens=1)
ROOMY = Limits(keep_last=2, min_free_disk_mb=0.0)


def make_state(step: int) -> TrainState:
    weight = torch.nn.Parameter(torch.arange(6.0) + step)
    state = {weight: {"m": torch.full((6,), float(step))}}
    return TrainState(
        model=SimpleNamespace(named_parameters=lambda: [("w", weight)]),
        optimizer=SimpleNamespace(state=state, slots=lambda _: ("m",)),
        cursor=SimpleNamespace(
            state_dict=lambda: {"position": step}, tokens_by_source=lambda: {"a": step}, exposure=dict
        ),
        step=step,
    )


class Bench:
    """A run's folder with a keeper on it; ``save(5)`` saves a state of that step."""

    def __init__(self, root, *, available_mb=10_000.0):
        self.root = root
        self.story = TelemetryWriter(root / "telemetry", 1)
        self.reading = Reading(t=0.0, available_mb=available_mb, rss_mb=100.0)
        self.store = Store(root / "checkpoints")
        self.store.folder.mkdir()
        self.keeper = self.launch(0)

    def launch(self, saved_step):
        return Keeper(self.store, SimpleNamespace(read=lambda: self.reading), saved_step=saved_step)

    def save(self, state, *, limits=ROOMY, background=False):
        state = make_state(state) if isinstance(state, int) else state
        self.story.write("step", state.step, loss=1.0)
        return self.keeper.save(
            state,
            Origin(story=self.story, recipe=RECIPE, fit=FIT, launch=1),
            limits=limits,
            background=background,
        )


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    yield bench
    bench.keeper.close()
    bench.story.close()


@pytest.fixture
def disk(monkeypatch):
    """``disk.free_mb`` is what the system says; each checkpoint that goes gives 10 MB."""
    disk = SimpleNamespace(free_mb=1e6)
    monkeypatch.setattr(Keeper, "_free_mb", lambda keeper: disk.free_mb)
    return disk


def test_a_save_says_what_it_did(bench):
    saved = bench.save(5)
    checkpoint = bench.store.open(5)
    assert (saved.step, saved.sha256, saved.trained_tokens) == (5, checkpoint.sha256, {"a": 5})
    assert saved.bytes == sum(path.stat().st_size for path in checkpoint.path.iterdir() if path.name != "manifest.json")
    assert saved.save_s == saved.stall_s
    assert bench.keeper.saved_step == 5 and bench.keeper.fault is None
    assert checkpoint.facts["telemetry"] == bench.story.position
    assert read_json(checkpoint.path / "state.json")["recipe"] == {"whole": "recipe"}


def test_every_checkpoint_names_the_one_before(bench):
    bench.save(5)
    bench.save(6)
    assert bench.store.open(5).facts["previous"] is None
    assert bench.store.open(6).facts["previous"] == {"step": 5, "sha256": bench.store.open(5).sha256}
    bench.keeper = bench.launch(6)
    bench.save(8)
    assert bench.store.open(8).facts["previous"] == {"step": 6, "sha256": bench.store.open(6).sha256}


def test_when_a_save_is_due(bench, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    limits = Limits(save_every_s=300.0)
    keeper = bench.keeper = bench.launch(4)
    assert not keeper.is_due(5, best=False, limits=limits)
    assert keeper.is_due(5, best=True, limits=limits), "the first best costs nothing yet"
    now[0] += 300.0
    assert keeper.is_due(5, best=False, limits=limits)
    assert not keeper.is_due(4, best=True, limits=limits), "saved already"
    assert not keeper.is_due(0, best=True, limits=limits), "nothing is learned yet"
    keeper.save_s = 10.0
    assert not keeper.is_due(5, best=False, limits=limits), "saving is dear here"
    now[0] += 200.0
    assert keeper.is_due(5, best=False, limits=limits)
    keeper.fault, keeper._tried_at = ResourceError("x"), now[0]
    dense = Limits(save_every_steps=5)
    assert not keeper.is_due(5, best=True, limits=dense), "a failed save is not tried again at once"
    now[0] += 60.0
    assert keeper.is_due(5, best=False, limits=limits)
    keeper.fault = None
    assert keeper.is_due(5, best=False, limits=dense) and not keeper.is_due(6, best=False, limits=dense)


def test_retention_after_a_save(bench):
    losses = {1: 1.0, 2: 3.0, 3: 2.0}
    limits = Limits(keep_last=2, keep_best=1, keep_best_quality=1, min_free_disk_mb=0.0)
    write_quality(bench.root / "evals", {2: 0.9, 3: 0.1})
    told = []
    for step in (1, 2, 3, 4, 5):
        state = make_state(step)
        state.losses = {past: loss for past, loss in losses.items() if past <= step}
        saved = bench.save(state, limits=limits)
        told.append((saved.removed, saved.lightened))
    assert told == [([], []), ([], []), ([], [1]), ([], [2]), ([3], [])]
    assert (bench.store.steps(), bench.store.complete_steps()) == ([1, 2, 4, 5], [4, 5])


def rot(store, step):
    """One byte of the weights changes; the size does not, so only reading it back tells."""
    weights = store.path(step) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")


def test_one_that_rotted_is_not_counted_as_one_of_two_even_for_a_full_disk(bench, disk):
    for step in (1, 2, 3):
        bench.save(step, limits=Limits(keep_last=9, min_free_disk_mb=0.0))
    rot(bench.store, 2)
    bench.keeper = bench.launch(3)  # another process, which has not read 2 itself
    disk.free_mb = 0.0
    assert not bench.keeper.has_room(make_state(4), ROOMY)
    assert bench.store.steps() == [1, 2, 3]
    disk.free_mb = 1e6
    assert bench.save(4).removed == [1, 2], "3 and 4 were read back"


def test_nothing_goes_while_only_one_is_sound(bench):
    for step in (1, 2, 3):
        bench.save(step, limits=Limits(keep_last=9, min_free_disk_mb=0.0))
    for step in (2, 3):
        rot(bench.store, step)
    bench.keeper = bench.launch(1)
    bench.store.prune({1, 2})  # as if 3 had been removed by hand
    saved = bench.save(4)
    assert saved.removed == [] and bench.store.steps() == [1, 2, 4]


@pytest.mark.parametrize("name", ["pins.json", "quality.json"])
def test_what_cannot_be_read_keeps_everything_and_is_told_once(bench, name):
    folder = bench.store.folder if name == "pins.json" else bench.root / "evals"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("{}")
    for step in (1, 2, 3, 4):
        assert bench.save(step) is not None
    assert bench.store.steps() == [1, 2, 3, 4]
    (warning,) = bench.keeper.take_warnings()
    assert warning.startswith("No older checkpoint was removed: ") and name in warning


# --- a full disk ---------------------------------------------------------------------------------------------------


def test_a_full_disk_is_known_before_anything_is_written(bench, disk):
    bench.save(1)
    disk.free_mb = 150.0
    assert bench.save(2, limits=Limits(min_free_disk_mb=200.0)) is None
    assert str(bench.keeper.shortage) == "disk full: needs 201 MB, 150 MB free"
    assert "150 MB are free and a save needs 201 MB; free some space" in str(bench.keeper.fault)
    assert bench.store.steps() == [1]
    disk.free_mb = 202.0
    assert bench.keeper.has_room(make_state(2), Limits(min_free_disk_mb=200.0)) and bench.keeper.shortage is None
    assert bench.save(2, limits=Limits(min_free_disk_mb=200.0)) is not None and bench.keeper.fault is None


def test_a_save_that_no_disk_could_hold_is_refused_instead_of_waited_for(bench):
    assert bench.save(2, limits=Limits(min_free_disk_mb=1e9)) is None
    assert bench.keeper.shortage is None
    assert "the whole disk has" in str(bench.keeper.fault) and "lower limits.min_free_disk_mb" in str(
        bench.keeper.fault
    )


def test_a_tight_disk_is_relieved_oldest_first_and_never_below_the_floor(bench, disk, monkeypatch):
    many = Limits(keep_last=9, keep_every_steps=1, min_free_disk_mb=100.0)
    for step in range(1, 8):
        state = make_state(step)
        state.losses = {1: 5.0, 3: 1.0}
        bench.save(state, limits=many)
    bench.store.pin(2, "asked for")
    prune, lighten = Store.prune, Store.lighten

    def pruning(store, keep):
        gone = prune(store, keep)
        disk.free_mb += 10.0 * len(gone)
        return gone

    def lightening(store, step):
        disk.free_mb += 5.0
        return lighten(store, step)

    monkeypatch.setattr(Store, "prune", pruning)
    monkeypatch.setattr(Store, "lighten", lightening)
    state = make_state(8)
    state.losses = {1: 5.0, 3: 1.0}
    disk.free_mb = 85.0
    assert bench.keeper.has_room(state, many)
    assert bench.store.steps() == [2, 3, 5, 6, 7], "1 and 4 were enough"
    disk.free_mb = 0.0
    assert not bench.keeper.has_room(state, many)
    assert (bench.store.steps(), bench.store.complete_steps()) == ([2, 3, 6, 7], [2, 6, 7])
    disk.free_mb = 1000.0
    saved = bench.save(state, limits=many)
    assert (saved.removed, saved.lightened) == ([1, 4, 5], [3]), "what made room is told with the next save"


@pytest.mark.parametrize(("code", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_failure_in_the_middle_leaves_the_old_ones_and_says_which_kind(bench, disk, monkeypatch, code, full):
    bench.save(1)
    with monkeypatch.context() as patch:

        def fail(file, data):
            raise OSError(code, os.strerror(code))

        patch.setattr(HashedFile, "write", fail)
        assert bench.save(2) is None
    assert (bench.keeper.shortage is not None) is full
    assert bench.store.steps() == [1] and bench.keeper.saved_step == 1
    assert "older checkpoints are untouched" in str(bench.keeper.fault)
    if full:  # the system counts free bytes that are not ours: not at once again
        assert not bench.keeper.has_room(make_state(2), ROOMY)
        later = time.monotonic() + keeper_module.RETRY_S + 1.0
        monkeypatch.setattr(time, "monotonic", lambda: later)
        assert bench.keeper.has_room(make_state(2), ROOMY)
    assert bench.save(2) is not None


def test_a_quota_is_met_by_removing_one_more_at_each_attempt(bench, disk, monkeypatch):
    """The system says full and counts free bytes: nothing tells how much has to go."""
    for step in (1, 2, 3, 4):
        bench.save(step, limits=Limits(keep_last=9, min_free_disk_mb=0.0))
    monkeypatch.setattr(keeper_module, "RETRY_S", 1e-9)
    left = []
    with monkeypatch.context() as patch:

        def fail(file, data):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        patch.setattr(HashedFile, "write", fail)
        for _ in range(4):
            assert bench.save(5, limits=Limits(keep_last=9, min_free_disk_mb=0.0)) is None
            left.append(bench.store.steps())
    assert left == [[1, 2, 3, 4], [2, 3, 4], [3, 4], [3, 4]]
    assert bench.save(5).removed == [1, 2, 3]


def test_a_story_that_cannot_be_synced_for_want_of_room_is_a_shortage(bench, disk, monkeypatch):
    from ondevice.run.files import write_error

    def full():
        raise write_error(bench.story.path, OSError(errno.ENOSPC, "full")) from OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(bench.story, "sync", full)
    assert bench.save(1) is None and bench.keeper.shortage is not None
    assert bench.store.steps() == []


def test_a_checkpoint_that_reads_back_wrong_removes_nothing(bench, monkeypatch):
    for step in (1, 2):
        bench.save(step)
    real = HashedFile.write

    def flip(file, data):
        flipped = bytes(data)[:-1] + bytes([bytes(data)[-1] ^ 1])
        os.write(file._fd, flipped)
        file._hash.update(data)
        file.size += len(flipped)
        return len(flipped)

    monkeypatch.setattr(HashedFile, "write", flip)
    assert bench.save(3) is None
    assert "step-00000003" in str(bench.keeper.fault) and bench.keeper.shortage is None
    assert bench.store.steps()[:2] == [1, 2] and bench.keeper.saved_step == 2
    monkeypatch.setattr(HashedFile, "write", real)
    assert bench.save(4) is not None
    assert bench.store.open(4).facts["previous"]["step"] == 2


# --- in the background ---------------------------------------------------------------------------------------------


@pytest.fixture
def slow_disk(monkeypatch):
    """Writing waits until ``slow_disk.set()``."""
    go = threading.Event()
    real = HashedFile.write

    def write(file, data):
        assert go.wait(30)
        return real(file, data)

    monkeypatch.setattr(HashedFile, "write", write)
    yield go
    go.set()


def test_training_goes_on_while_the_copy_is_written(bench, slow_disk, tmp_path):
    state = make_state(5)
    assert bench.save(state, background=True) is None
    assert bench.keeper.in_flight and not bench.keeper.landed and bench.keeper.fault is None
    position = bench.story.position
    (weight,) = state.optimizer.state
    with torch.no_grad():
        weight.add_(100.0)
        state.optimizer.state[weight]["m"].zero_()
    state.step, state.cursor = 6, make_state(6).cursor
    state.measured(0.1)
    bench.story.write("step", 6, loss=0.5)
    slow_disk.set()
    saved = bench.keeper.settle()
    assert not bench.keeper.in_flight and bench.keeper.saved_step == 5 == saved.step
    assert saved.trained_tokens == {"a": 5} and saved.stall_s <= saved.save_s
    other = tmp_path / "other"
    other.mkdir()
    foreground = Bench(other)
    foreground.save(5)
    for name in ("model.safetensors", "optimizer.safetensors", "state.json"):
        background = (bench.store.path(5) / name).read_bytes()
        assert background == (foreground.store.path(5) / name).read_bytes(), name
    assert bench.store.open(5).facts["telemetry"] == position
    assert bench.store.open(5).facts["previous"] is None
    foreground.story.close()


def test_one_save_is_in_flight_at_a_time(bench, slow_disk):
    bench.save(5, background=True)
    with pytest.raises(AssertionError, match="settle"):
        bench.save(6)
    slow_disk.set()
    assert bench.keeper.settle().step == 5
    assert bench.keeper.settle() is None
    assert bench.save(6).step == 6
    assert bench.store.open(6).facts["previous"]["step"] == 5


def test_a_background_failure_is_told_when_it_is_settled(bench, monkeypatch):
    def fail(file, data):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(HashedFile, "write", fail)
    assert bench.save(5, background=True) is None
    assert bench.keeper.settle() is None
    assert bench.keeper.shortage is not None and "disk is full" in str(bench.keeper.fault)
    assert bench.keeper.saved_step == 0


@pytest.mark.parametrize(
    ("reading", "limits", "words"),
    [
        (Reading(t=0.0), ROOMY, "the free memory of this machine is unknown"),
        (Reading(t=0.0, available_mb=200.0), ROOMY, "a copy takes 0 MB of memory and 200 MB are available"),
        (
            Reading(t=0.0, available_mb=1e4, rss_mb=900.0),
            Limits(keep_last=2, min_free_disk_mb=0.0, max_rss_mb=900.0),
            "a copy of 0 MB would pass limits.max_rss_mb 900",
        ),
    ],
)
def test_without_memory_for_a_copy_it_saves_in_the_foreground_and_says_so_once(bench, reading, limits, words):
    bench.reading = reading
    for step in (5, 6):
        assert bench.save(step, limits=limits, background=True).step == step
    (warning,) = bench.keeper.take_warnings()
    assert words in warning


def test_a_copy_that_memory_refuses_falls_back_too(bench, monkeypatch):
    real = keeper_module.freeze

    def refuse(*args, copied=False, **kwargs):
        if copied:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(keeper_module, "freeze", refuse)
    assert bench.save(5, background=True).step == 5
    assert "there is no memory for a copy" in bench.keeper.take_warnings()[0]


def test_closing_waits_for_the_thread(bench, slow_disk):
    bench.save(5, background=True)
    threading.Timer(0.2, slow_disk.set).start()
    bench.keeper.close()
    assert bench.store.open(5).step == 5
