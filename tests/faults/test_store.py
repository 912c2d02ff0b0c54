"""Crashes at every file system call of a save, a pin, a prune and a status write, and what a power cut may leave.

Two models. *Kill*: the process ends at the Nth call, everything before it stays. *Power cut* (after SQLite's test6.c):
whatever was not fsynced before the Nth call may be there, gone or torn, each thing on its own; the survivors are built
as a real folder and opened. After either, the store must be in the old state or the new one.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import CheckpointError, DataError, ResourceError
from ondevice.run.files import read_json, write_json
from ondevice.run.store import Store, steps_to_keep

NAMES = ("model.safetensors", "optimizer.safetensors")
CALLS = ("open", "write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir")


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


class Crash(BaseException):
    """The end of the process: nothing catches it, and no call after it reaches the disk."""


# --- the power-cut model -------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Node:
    """A file or folder. ``written`` holds a file's data since its last fsync, ``pending`` a folder's entry changes."""

    is_folder: bool
    data: bytes = b""
    written: bytes = b""
    entries: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)
    pending: list[tuple[str, Node | None, str | None]] = field(default_factory=list)

    def change(self, name: str, node: Node | None, *, instead_of: str | None = None) -> None:
        """Puts or removes an entry; with ``instead_of`` it is a rename within the folder, which is one change."""
        self.pending.append((name, node, instead_of))
        _apply(self.entries, self.pending[-1])

    def sync(self) -> None:
        self.data, self.written = self.data + self.written, b""
        self.durable, self.pending = dict(self.entries), []

    def after_power_cut(self, choose: Callable[[], float], folder: Path) -> None:
        """Makes what survives: each unsynced change happened or not, unsynced data is whole, torn, zeroed or gone."""
        entries = dict(self.durable)
        for change in self.pending:
            if choose() < 0.5:
                _apply(entries, change)
        for name, node in entries.items():
            if node.is_folder:
                (folder / name).mkdir()
                node.after_power_cut(choose, folder / name)
            else:
                kept = node.written[: round(choose() * len(node.written))] if choose() < 0.6 else node.written
                kept = bytes(len(kept)) if choose() < 0.2 else kept
                (folder / name).write_bytes(node.data + (kept if choose() < 0.7 else b""))


def _apply(entries: dict[str, Node], change: tuple[str, Node | None, str | None]) -> None:
    name, node, instead_of = change
    if instead_of is not None:
        entries.pop(instead_of, None)
    if node is None:
        entries.pop(name, None)
    else:
        entries[name] = node


class Disk:
    """Follows the calls under ``root``. ``crash_at`` ends the process before that call; ``calls`` counts them."""

    def __init__(self, root: Path, *, crash_at: int | None = None) -> None:
        self.root, self.crash_at = root, crash_at
        self.calls: list[str] = []
        self.tree = self._load(root)
        self._real = {name: getattr(os, name) for name in CALLS}
        self._nodes: dict[int, tuple[Node, Path]] = {}

    def _load(self, path: Path) -> Node:
        if not path.is_dir():
            return Node(False, path.read_bytes())
        entries = {item.name: self._load(item) for item in path.iterdir()}
        return Node(True, entries=entries, durable=dict(entries))

    @contextmanager
    def following(self) -> Iterator[Disk]:
        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, getattr(self, f"_{name}"))
            yield self

    def _count(self, name: str, path: Any) -> None:
        if self.crash_at is not None and len(self.calls) >= self.crash_at:
            raise Crash
        self.calls.append(f"{name} {path}")

    def _full(self, path: Any, dir_fd: int | None) -> Path:
        return (self._nodes[dir_fd][1] if dir_fd is not None else Path()) / os.fspath(path)

    def _find(self, path: Path) -> Node | None:
        node: Node | None = self.tree
        for part in path.relative_to(self.root).parts:
            node = node.entries.get(part) if node else None
        return node

    def _parent(self, path: Path) -> Node:
        parent = self._find(path.parent)
        assert parent is not None
        return parent

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        full = self._full(path, dir_fd)
        if not full.is_relative_to(self.root):
            return int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        if flags & os.O_CREAT:
            self._count("create", full.name)
        fd = int(self._real["open"](path, flags, mode, dir_fd=dir_fd))
        node = self._find(full)
        if node is None:
            node = Node(False)
            self._parent(full).change(full.name, node)
        self._nodes[fd] = (node, full)
        return fd

    def _write(self, fd: int, data: Any) -> int:
        self._count("write", self._nodes[fd][1].name)
        done = int(self._real["write"](fd, data))
        self._nodes[fd][0].written += bytes(data)[:done]
        return done

    def _fsync(self, fd: int) -> None:
        self._count("fsync", self._nodes[fd][1].name)
        self._real["fsync"](fd)
        self._nodes[fd][0].sync()

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._count("mkdir", Path(path).name)
        self._real["mkdir"](path, mode)
        self._parent(Path(path)).change(Path(path).name, Node(True))

    def _rename(self, source: Any, target: Any) -> None:
        source, target = Path(source), Path(target)
        assert source.parent == target.parent
        self._count("rename", target.name)
        self._real["rename"](source, target)
        self._parent(target).change(target.name, self._find(source), instead_of=source.name)

    _replace = _rename

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        full = self._full(path, dir_fd)
        self._count("unlink", full.name)
        self._real["unlink"](path, dir_fd=dir_fd)
        self._parent(full).change(full.name, None)

    def _rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        full = self._full(path, dir_fd)
        self._count("rmdir", full.name)
        self._real["rmdir"](path, dir_fd=dir_fd)
        self._parent(full).change(full.name, None)


# --- what may be found after a crash -------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """What a person could tell of a run's folder: checkpoints that verify, pins, status."""

    checkpoints: tuple[int, ...]
    pins: tuple[tuple[int, str], ...]
    status: Any


def state_of(root: Path) -> State:
    """The state, after checking that the store opens and that sweeping takes nothing away."""
    store = Store(root / "checkpoints")
    newest, damage = store.latest()
    before = tuple(step for step in store.steps() if _opens(store, step))
    assert damage == [], "a half-written or half-deleted checkpoint looks like a whole one"
    assert newest is not None
    store.sweep()
    assert before == tuple(store.steps()) == tuple(step for step in store.steps() if _opens(store, step))
    assert {path.name for path in store.folder.iterdir()} <= {*(f"step-{step:08d}" for step in before), "pins.json"}
    save(store, 99)  # the run goes on
    assert _opens(store, 99)
    status = read_json(root / "status.json") if (root / "status.json").exists() else None
    return State(before, tuple(store.pins().items()), status)


def _opens(store: Store, step: int) -> bool:
    try:
        return store.open(step).facts["threads"] == 2
    except CheckpointError:
        return False


@dataclass(frozen=True)
class Act:
    """Something the trainer does, with every state that a crash in the middle of it may leave."""

    name: str
    do: Callable[[Path], None]
    allowed: tuple[State, ...]


def _begin(root: Path) -> None:
    store = Store(root / "checkpoints")
    store.folder.mkdir()
    for step in (1, 2, 3):
        save(store, step)
    store.pin(1, "first")
    write_json(root / "status.json", {"step": 3})


def _make_acts() -> list[Act]:
    pins, status = ((1, "first"),), {"step": 3}
    old = State((1, 2, 3), pins, status)

    def prune(root: Path) -> None:
        store = Store(root / "checkpoints")
        store.prune(steps_to_keep(store.steps(), keep_last=2, pins=(), best=None))

    def save_and_prune(root: Path) -> None:
        store = Store(root / "checkpoints")
        save(store, 4)
        store.open(4)
        store.prune(steps_to_keep(store.steps(), keep_last=2, pins=store.pins(), best=None))

    saved = State((1, 2, 3, 4), pins, status)
    return [
        Act("save", lambda root: save(Store(root / "checkpoints"), 4), (old, saved)),
        Act("save again", lambda root: save(Store(root / "checkpoints"), 3), (old,)),
        Act(
            "pin",
            lambda root: Store(root / "checkpoints").pin(2, "best"),
            (old, State((1, 2, 3), ((1, "first"), (2, "best")), status)),
        ),
        Act("unpin", lambda root: Store(root / "checkpoints").pin(1, None), (old, State((1, 2, 3), (), status))),
        Act("prune", prune, (old, State((2, 3), pins, status))),
        Act("save and prune", save_and_prune, (old, saved, State((1, 3, 4), pins, status))),
        Act(
            "status",
            lambda root: write_json(root / "status.json", {"step": 4}),
            (old, State((1, 2, 3), pins, {"step": 4})),
        ),
    ]


ACTS = _make_acts()


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Gives a new copy of a run's folder with three checkpoints, a pin and a status."""
    original, numbers = tmp_path / "original", itertools.count()
    original.mkdir()
    _begin(original)
    return lambda: Path(shutil.copytree(original, tmp_path / f"copy-{next(numbers)}"))


def crash_points(act: Act, fresh: Callable[[], Path]) -> Iterator[Disk]:
    """The disk as it is when ``act`` crashes before its call 0, 1, 2 ..., and last when it does not."""
    for crash_at in itertools.count():
        disk = Disk(fresh(), crash_at=crash_at)
        with disk.following(), suppress(Crash):
            act.do(disk.root)
            disk.crash_at = None
        yield disk
        if disk.crash_at is None:
            return


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_a_kill_at_any_call_leaves_the_old_state_or_the_new(act: Act, fresh: Callable[[], Path]) -> None:
    found = []
    for disk in crash_points(act, fresh):
        found.append(state_of(disk.root))
        assert found[-1] in act.allowed, disk.calls
    assert found[0] == act.allowed[0] and found[-1] == act.allowed[-1]
    order = [act.allowed.index(state) for state in found]
    assert order == sorted(order), "a later crash never finds an earlier state"


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_a_power_cut_at_any_call_leaves_the_old_state_or_the_new(
    act: Act, fresh: Callable[[], Path], tmp_path: Path
) -> None:
    for number, disk in enumerate(crash_points(act, fresh)):
        for seed in range(8):
            choose: Callable[[], float] = [lambda: 0.0, lambda: 0.99, random.Random(seed).random][min(seed, 2)]
            left = tmp_path / f"left-{number}-{seed}"
            left.mkdir()
            disk.tree.after_power_cut(choose, left)
            state = state_of(left)
            assert state in act.allowed, disk.calls
            if disk.crash_at is None and act.name != "status":
                assert state == act.allowed[-1], "what was reported as done must survive"
            shutil.rmtree(left)


def test_the_model_finds_a_missing_fsync(fresh: Callable[[], Path], tmp_path: Path) -> None:
    """Without fsync the same act loses data: the model would notice a wrong order."""
    disk = Disk(fresh())
    with disk.following(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        save(Store(disk.root / "checkpoints"), 4)
    left = tmp_path / "left"
    left.mkdir()
    draws = itertools.cycle([0.1, 0.1, 0.9])  # entries survive, data is gone
    disk.tree.after_power_cut(lambda: next(draws), left)
    with pytest.raises(AssertionError):
        assert state_of(left).checkpoints == (1, 2, 3, 4)


def test_a_save_makes_everything_durable_before_its_name(fresh: Callable[[], Path]) -> None:
    disk = Disk(fresh())
    with disk.following():
        save(Store(disk.root / "checkpoints"), 4)
    words = [call for call in disk.calls if not call.startswith("write")]
    temporary = f".tmp-4-{os.getpid()}"
    assert words == [
        f"mkdir {temporary}",
        "create model.safetensors",
        "fsync model.safetensors",
        "create optimizer.safetensors",
        "fsync optimizer.safetensors",
        "create manifest.json",
        "fsync manifest.json",
        f"fsync {temporary}",
        "rename step-00000004",
        "fsync checkpoints",
    ]
    disk.calls.clear()
    with disk.following():
        Store(disk.root / "checkpoints").prune({1, 2, 4})
    assert disk.calls[:2] == ["unlink manifest.json", "fsync step-00000003"]
    assert disk.calls[-2:] == ["rmdir step-00000003", "fsync checkpoints"]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
@pytest.mark.parametrize("code", [28, 5, 13])  # ENOSPC, EIO, EACCES
def test_an_error_at_any_call_is_reported_and_changes_nothing_valid(
    act: Act, code: int, fresh: Callable[[], Path]
) -> None:
    """Every call fails once, alone; the act then raises our own errors only, or gets by without it."""
    for failing in itertools.count():
        root = fresh()
        calls = itertools.count()

        def once(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if name == "open" and not args[1] & os.O_CREAT:
                    return real(*args, **kwargs)
                if next(calls) == failing:  # noqa: B023
                    raise OSError(code, os.strerror(code))
                return real(*args, **kwargs)

            return call

        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(os, name, once(name, getattr(os, name)))
            with suppress(ResourceError, CheckpointError, DataError):
                act.do(root)
        assert state_of(root) in act.allowed
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
