"""Crashes at every file system call of a save, a pin, a prune, a lightening and a status write.

The crash model is in ``conftest.py``. After a kill or a power cut at any call the store must be in the old state or the
new one, and where several things are done one after another, in a state in between.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ondevice.device.readings import Reading
from ondevice.errors import CheckpointError, DataError, ResourceError
from ondevice.run.audit import audit_file
from ondevice.run.files import read_json, write_json, write_sealed
from ondevice.run.quality import read_quality, write_quality
from ondevice.run.recipe import Fit
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.run.telemetry import TelemetryWriter
from ondevice.train.keeper import Keeper, Origin, Saved
from ondevice.train.pruning import Pruner
from ondevice.train.state import TrainState

NAMES = ("model.safetensors", "optimizer.safetensors")


def save(store: Store, step: int) -> None:
    with store.draft(step) as draft:
        for name in NAMES:
            with draft.file(name) as file:
                file.write(f"{name} of step {step} ".encode() * 40)
        draft.commit({"step": step, "threads": 2})


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests never cut the power, so nothing needs to wait for the disk; calls are still counted and failed."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


# --- what may be found after a crash -------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """What a person could tell of a run's folder: checkpoints that verify (light: negative), pins, status, scores."""

    checkpoints: tuple[int, ...] = (1, 2, 3, 4)
    pins: tuple[tuple[int, str], ...] = ((2, "first"),)
    status: int = 4
    quality: tuple[tuple[int, float], ...] = ((1, 0.5),)


def state_of(root: Path) -> State:
    """The state, after checking that the store opens and that sweeping takes nothing away."""
    store = Store(root / "checkpoints")
    newest, damage = store.latest(complete=True)
    before = tuple(store.steps())
    assert damage == [], "a half-written or half-deleted checkpoint looks like a whole one"
    assert newest is not None and newest.step == before[-1]
    store.sweep()
    assert before == tuple(store.steps())
    assert {path.name for path in store.folder.iterdir()} <= {*(f"step-{step:08d}" for step in before), "pins.json"}
    complete = store.complete_steps()
    assert len(complete) >= 2, "two that training could go on from, whatever happens"
    for step in before:
        checkpoint = store.open(step)
        there = {path.name for path in checkpoint.path.iterdir()}
        assert there == {"manifest.json", *checkpoint.files}, "nothing is left beside or missing"
        _is_behind_its_story(root, checkpoint.facts.get("telemetry"))
    save(store, 99)  # the run goes on
    assert _opens(store, 99)
    checkpoints = tuple(step if step in complete else -step for step in before)
    quality = tuple(read_quality(root / "evals").items())
    return State(checkpoints, tuple(store.pins().items()), read_json(root / "status.json")["step"], quality)


def _is_behind_its_story(root: Path, position: dict[str, Any] | None) -> None:
    """No checkpoint is ahead of the story that it says was written before it."""
    if position is not None:
        audit = audit_file(root / "telemetry" / f"{position['launch']:04d}.jsonl", wanted=[position["bytes"]])
        assert audit.covers(position)


def _opens(store: Store, step: int) -> bool:
    try:
        return "threads" in store.open(step).facts
    except CheckpointError:
        return False


@dataclass(frozen=True)
class Act:
    """Something the trainer does, with every state that a crash in the middle of it may leave, in order."""

    name: str
    do: Callable[[Path], object]
    allowed: tuple[State, ...]


def _begin(root: Path) -> None:
    store = Store(root / "checkpoints")
    for name in ("checkpoints", "evals", "telemetry"):
        (root / name).mkdir()
    for step in (1, 2, 3, 4):
        save(store, step)
    store.pin(2, "first")
    write_quality(root / "evals", {1: 0.5})
    write_json(root / "status.json", {"step": 4})


def store_of(root: Path) -> Store:
    return Store(root / "checkpoints")


def finish_lightening(root: Path) -> None:
    """What a crash after the manifest was replaced leaves to the next sweep."""
    manifest = store_of(root).peek(1).manifest
    write_sealed(store_of(root).path(1) / "manifest.json", {**manifest, "dropped": [NAMES[1]]})
    store_of(root).sweep()


def prune_by_policy(root: Path) -> None:
    """Step 1 is the best by quality, 2 is pinned, 3 is nobody's."""
    done = Pruner(store_of(root), root / "evals", sound=set()).prune(step=4, losses={}, limits=Limits(keep_last=2))
    if done.trouble:
        raise ResourceError(done.trouble)


def keep(root: Path) -> tuple[Keeper, Saved | None]:
    """A whole save as the loop orders it: story, checkpoint, reading back, retention."""
    story = TelemetryWriter(root / "telemetry", 1)
    story.write("step", 5, loss=1.0)
    sensors = SimpleNamespace(read=lambda: Reading(t=0.0))
    keeper = Keeper(store_of(root), sensors, saved_step=4)
    saved = keeper.save(
        _tiny_state(),
        Origin(
            story=story,
            recipe=SimpleNamespace(
                sha256="r", to_json=dict, train=SimpleNamespace(optimizer_state="adamw-fp32", compile=False)
            ),
            fit=Fit(micro_batch=1, threads=1, activation_checkpointing=False, loss_chunk_tokens=1),
            launch=1,
        ),
        limits=Limits(keep_last=2, min_free_disk_mb=0.0),
    )
    story.close()
    return keeper, saved


def _tiny_state() -> TrainState:
    weight = torch.nn.Parameter(torch.arange(6.0))
    return TrainState(
        model=SimpleNamespace(named_parameters=lambda: [("w", weight)]),
        optimizer=SimpleNamespace(state={weight: {"m": torch.ones(6)}}, slots=lambda _: ("m",)),
        cursor=SimpleNamespace(state_dict=lambda: {"position": 5}, tokens_by_source=lambda: {"a": 5}, exposure=dict),
        step=5,
    )


OLD = State()
PINNED_3 = State(pins=((2, "first"), (3, "best")))
ACTS = [
    Act("save", lambda root: save(store_of(root), 5), (OLD, State((1, 2, 3, 4, 5)))),
    Act("save again", lambda root: save(store_of(root), 4), (OLD,)),
    Act("pin", lambda root: store_of(root).pin(3, "best"), (OLD, PINNED_3)),
    Act("unpin", lambda root: store_of(root).pin(2, None), (OLD, State(pins=()))),
    Act("prune", lambda root: store_of(root).prune({3, 4}), (OLD, State((2, 3, 4)), State((3, 4)))),
    Act("status", lambda root: write_json(root / "status.json", {"step": 5}), (OLD, State(status=5))),
    Act("quality", lambda root: write_quality(root / "evals", {3: 1.0}), (OLD, State(quality=((3, 1.0),)))),
    Act("lighten", lambda root: store_of(root).lighten(2), (OLD, State((1, -2, 3, 4)))),
    Act("finish a lightening", finish_lightening, (OLD, State((-1, 2, 3, 4)))),
    Act("prune by policy", prune_by_policy, (OLD, State((1, 2, 3, 4)), State((-1, 2, 3, 4)))),
    Act(
        "keep",
        keep,
        (OLD, State((1, 2, 3, 4, 5)), State((1, 2, 4, 5)), State((-1, 2, 4, 5))),
    ),
]


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Gives a new copy of a run's folder with four checkpoints, a pin, a score and a status."""
    original, numbers = tmp_path / "original", itertools.count()
    original.mkdir()
    _begin(original)
    return lambda: Path(shutil.copytree(original, tmp_path / f"copy-{next(numbers)}"))


def crash_points(act: Act, fresh: Callable[[], Path], crash_model: SimpleNamespace) -> Iterator[Any]:
    """The disk as it is when ``act`` crashes before its call 0, 1, 2 ..., and last when it does not."""
    for crash_at in itertools.count():
        disk = crash_model.Disk(fresh(), crash_at=crash_at)
        with disk.following(), suppress(crash_model.Crash):
            act.do(disk.root)
            disk.crash_at = None
        yield disk
        if disk.crash_at is None:
            return


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_a_kill_at_any_call_leaves_the_old_state_or_the_new(
    act: Act, fresh: Callable[[], Path], crash_model: SimpleNamespace
) -> None:
    found = []
    for disk in crash_points(act, fresh, crash_model):
        found.append(state_of(disk.root))
        assert found[-1] in act.allowed, disk.calls
        shutil.rmtree(disk.root)
    assert found[0] == act.allowed[0] and found[-1] == act.allowed[-1]
    order = [act.allowed.index(state) for state in found]
    assert order == sorted(order), "a later crash never finds an earlier state"


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_a_power_cut_at_any_call_leaves_the_old_state_or_the_new(
    act: Act, fresh: Callable[[], Path], tmp_path: Path, crash_model: SimpleNamespace
) -> None:
    for number, disk in enumerate(crash_points(act, fresh, crash_model)):
        for seed in range(4):
            choose: Callable[[], float] = [lambda: 0.0, lambda: 0.99, random.Random(seed).random][min(seed, 2)]
            left = tmp_path / f"left-{number}-{seed}"
            left.mkdir()
            disk.tree.after_power_cut(choose, left)
            state = state_of(left)
            assert state in act.allowed, disk.calls
            if disk.crash_at is None and act.name != "status":
                assert state == act.allowed[-1], "what was reported as done must survive"
            shutil.rmtree(left)
        shutil.rmtree(disk.root)


def test_the_model_finds_a_missing_fsync(
    fresh: Callable[[], Path], tmp_path: Path, crash_model: SimpleNamespace
) -> None:
    """Without fsync the same act loses data: the model would notice a wrong order."""
    disk = crash_model.Disk(fresh())
    with disk.following(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        save(store_of(disk.root), 5)
    left = tmp_path / "left"
    left.mkdir()
    draws = itertools.cycle([0.1, 0.1, 0.9])  # entries survive, data is gone
    disk.tree.after_power_cut(lambda: next(draws), left)
    with pytest.raises(AssertionError):
        assert state_of(left).checkpoints == (1, 2, 3, 4, 5)


def test_a_save_makes_everything_durable_before_its_name(
    fresh: Callable[[], Path], crash_model: SimpleNamespace
) -> None:
    disk = crash_model.Disk(fresh())
    with disk.following():
        save(store_of(disk.root), 5)
    words = [call for call in disk.calls if not call.startswith("write")]
    temporary = f".tmp-5-{os.getpid()}"
    assert words == [
        f"mkdir {temporary}",
        "create model.safetensors",
        "fsync model.safetensors",
        "create optimizer.safetensors",
        "fsync optimizer.safetensors",
        "create manifest.json",
        "fsync manifest.json",
        f"fsync {temporary}",
        "rename step-00000005",
        "fsync checkpoints",
    ]
    disk.calls.clear()
    with disk.following():
        store_of(disk.root).prune({1, 2, 3, 5})
    assert disk.calls[:2] == ["unlink manifest.json", "fsync step-00000004"]
    assert disk.calls[-2:] == ["rmdir step-00000004", "fsync checkpoints"]


def test_lightening_replaces_the_manifest_before_anything_goes(
    fresh: Callable[[], Path], crash_model: SimpleNamespace
) -> None:
    disk = crash_model.Disk(fresh())
    with disk.following():
        assert store_of(disk.root).lighten(1)
    words = [call.split()[0] for call in disk.calls]
    assert words == ["create", "write", "fsync", "rename", "fsync", "unlink", "fsync"]
    assert disk.calls[3:6] == ["rename manifest.json", "fsync step-00000001", "unlink optimizer.safetensors"]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
@pytest.mark.parametrize("code", [28, 5])  # ENOSPC, EIO
def test_an_error_at_any_call_is_reported_and_changes_nothing_valid(
    act: Act, code: int, fresh: Callable[[], Path], crash_model: SimpleNamespace
) -> None:
    """Every call fails once, alone; the act then raises our own errors only, or gets by without it."""
    for failing in itertools.count():
        root = fresh()
        with failing_call(failing, code, crash_model) as calls, suppress(ResourceError, CheckpointError, DataError):
            act.do(root)
        assert _is_between(state_of(root), act.allowed)
        shutil.rmtree(root)
        if next(calls) <= failing:
            return


def _is_between(state: State, allowed: tuple[State, ...]) -> bool:
    """Whether each thing by itself is as in one of the states: what could not be deleted is left for the next time."""
    steps = {step for known in allowed for step in known.checkpoints}
    always = set.intersection(*({abs(step) for step in known.checkpoints} for known in allowed))
    return (
        set(state.checkpoints) <= steps
        and always <= {abs(step) for step in state.checkpoints}
        and all(getattr(state, name) in {getattr(known, name) for known in allowed} for name in ("pins", "status"))
        and state.quality in {known.quality for known in allowed}
    )


@contextmanager
def failing_call(failing: int, code: int, crash_model: SimpleNamespace) -> Iterator[Iterator[int]]:
    """The call of that number fails; gives the counter."""
    calls = itertools.count()

    def once(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return real(*args, **kwargs)
            if next(calls) == failing:
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in crash_model.CALLS:
            patch.setattr(os, name, once(name, getattr(os, name)))
        yield calls


@pytest.mark.parametrize("code", [28, 5])  # ENOSPC, EIO
def test_a_keeper_that_could_not_save_says_so_and_saves_the_next_time(
    code: int, fresh: Callable[[], Path], crash_model: SimpleNamespace
) -> None:
    for failing in itertools.count(2):  # 0 and 1 make the telemetry file and its folder
        root = fresh()
        with failing_call(failing, code, crash_model) as calls:
            keeper, saved = keep(root)
        if saved is None:
            assert keeper.fault is not None and "\n" not in str(keeper.fault)
            assert (keeper.shortage is not None) == (code == 28)
            assert store_of(root).complete_steps()[:4] == [1, 2, 3, 4], "nothing older goes for one that is not there"
        else:
            assert saved.sha256 == store_of(root).open(5).sha256
        (root / "telemetry" / "0001.jsonl").unlink(missing_ok=True)
        keeper, saved = keep(root)
        assert saved is not None and keeper.fault is None and _opens(store_of(root), 5)
        shutil.rmtree(root)
        if next(calls) <= failing:
            return


# --- damage --------------------------------------------------------------------------------------------------------


def test_flipped_bits_of_a_checkpoint_are_noticed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for step in (1, 2):
        save(store, step)
    for path in sorted(store.path(2).iterdir()):
        whole = path.read_bytes()
        tries = 1000 if path.name == "manifest.json" else 60
        for bit in random.Random(1).sample(range(8 * len(whole)), tries):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match="step-00000002"):
                store.open(2)
        latest, damage = store.latest()
        assert latest is not None and latest.step == 1
        assert len(damage) == 1 and path.name in damage[0]
        path.write_bytes(whole)
    assert store.open(2).step == 2


@pytest.mark.parametrize("name", [*NAMES, "manifest.json"])
def test_other_damage_is_noticed(tmp_path: Path, name: str) -> None:
    store = Store(tmp_path / "checkpoints")
    for step in (1, 2):
        save(store, step)
    file = store.path(2) / name
    whole = file.read_bytes()

    def replace(make: Callable[[], object]) -> None:
        file.unlink()
        make()

    (tmp_path / "outside").write_bytes(whole)
    damages: list[Callable[[], object]] = [
        lambda: file.write_bytes(b""),
        lambda: file.write_bytes(whole[:-1]),
        lambda: file.write_bytes(whole + b"\0"),
        lambda: file.write_bytes(bytes(len(whole))),
        lambda: shutil.copy(store.path(1) / name, file),
        lambda: replace(lambda: file.symlink_to(tmp_path / "outside")),
        lambda: replace(lambda: os.mkfifo(file)),
        lambda: replace(file.mkdir),
        file.rmdir,
    ]
    for damage in damages:
        damage()
        with pytest.raises(CheckpointError, match="step-00000002"):
            store.open(2)
        latest, _ = store.latest()
        assert latest is not None and latest.step == 1
    assert store.steps() == ([1] if name == "manifest.json" else [1, 2])
