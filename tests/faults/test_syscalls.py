"""Every act of a trainer on its run's folder with one system call killed or failed: old or new, told, repeatable.

Without root and without strace by failing the functions of ``os`` in this process; a few real ones through strace.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import OndeviceError
from ondevice.run import files
from ondevice.run.store import Store
from tools.faults import syscalls, syscalls_full, victim
from tools.faults.rig import Call, Rig, Trial, missing_strace
from tools.faults.victim_state import State, Verdict, goes_on, judge, read_state

CHANGING = ("write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir", "ftruncate", "pwrite", "utime")
READING = ("close", "stat", "lstat", "fstat", "scandir", "listdir")
SOME = 5  # calls of an act that are tried here; the campaign tries every one

needs_strace = pytest.mark.skipif(bool(missing_strace()), reason=missing_strace() or "strace works")


class Crash(BaseException):
    """The end of the process: nothing catches it, and no call after it reaches the disk."""


@dataclass
class Faults:
    """Fails the call of a number between the act's two marks; ``kill`` ends everything from there on."""

    at: int
    code: int | None
    calls: list[str] = field(default_factory=list)
    inside: bool = False
    dead: bool = False

    def install(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("open", *CHANGING, *READING):
            patch.setattr(os, name, self._failing(name, getattr(os, name)))
        patch.setattr(os, "access", self._marked)

    def _marked(self, path: Any, mode: int) -> bool:
        self.inside = str(path).endswith(".begin")
        return False

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.dead:
                if name == "close":
                    real(*args, **kwargs)  # as the system does for a dead process, locks included
                raise Crash
            changes = name in CHANGING or (name == "open" and bool(args[1] & os.O_CREAT))
            if not self.inside or (self.code != errno.EIO and not changes):
                return real(*args, **kwargs)
            self.calls.append(name)
            if len(self.calls) - 1 != self.at:
                return real(*args, **kwargs)
            if self.code is None:
                self.dead = True
                raise Crash
            if name == "close":
                real(*args, **kwargs)  # Linux closes, whatever it answers
            raise OSError(self.code, os.strerror(self.code))

        return call


def attempt(act: str, root: Path, faults: Faults) -> tuple[int, str]:
    """What the victim's process would have ended with, and said."""
    with pytest.MonkeyPatch.context() as patch:
        faults.install(patch)
        try:
            victim.do(act, root)
        except Crash:
            return -9, ""
        except OndeviceError as error:
            return error.exit_code, str(error)
    return 0, ""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("acts") / "original"
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        victim.prepare(folder)
    return folder


@pytest.fixture
def fresh(original: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Gives a new copy of a folder whose files are small and need not wait for the disk."""
    make_quick(monkeypatch)
    copy = original.with_name("copy")

    def make() -> Path:
        shutil.rmtree(copy, ignore_errors=True)
        return Path(shutil.copytree(original, copy))

    return make


def make_quick(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "fsync", lambda fd: None)
    patch.setattr(victim, "SIZES", dict.fromkeys(victim.SIZES, 2_000))


def in_process_trials(act: str, code: int | None, fresh: Callable[[], Path]) -> Iterator[tuple[str, Verdict]]:
    """Some of the act's calls, the first and the last among them; the first is followed by a repetition."""
    old, root = read_state(fresh()), fresh()
    survey = Faults(-1, code)
    assert attempt(act, root, survey) == (0, "")
    new = read_state(root)
    for at in some(len(survey.calls), seed=f"{act} {code}"):
        root, faults = fresh(), Faults(at, code)
        ended, said = attempt(act, root, faults)
        verdict = judge(old, new, read_state(root), ended=ended, said=said)
        if at == 0:
            verdict.losses += goes_on(act, root, new)
        yield f"{faults.calls[at]} #{at}", verdict


def some(count: int, *, seed: str) -> list[int]:
    chosen = random.Random(seed).sample(range(count), min(count, SOME))
    return sorted({*chosen, *range(count)[:1], *range(count)[-1:]})


@pytest.mark.parametrize("act", victim.ACTS)
@pytest.mark.parametrize("code", [None, errno.EIO, errno.ENOSPC], ids=["kill", "EIO", "ENOSPC"])
def test_a_fault_at_a_call_leaves_old_or_new_and_is_told(act: str, code: int | None, fresh: Callable[[], Path]) -> None:
    tried = list(in_process_trials(act, code, fresh))
    assert act == "read back" or tried
    assert [(call, verdict) for call, verdict in tried if verdict.losses or verdict.silent] == []


def test_a_disk_that_cannot_tell_what_is_there_loses_nothing(
    fresh: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing lstat is not an absence: no checkpoint is swept away, no pin forgotten."""
    root, real = fresh(), os.lstat
    store = Store(root / "first" / "checkpoints")

    def lstat(path: Any, **more: Any) -> os.stat_result:
        if str(path).endswith(("manifest.json", "pins.json")):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "lstat", lstat)
        store.sweep()
        assert store.pins() == {1: "first"}
    assert [store.open(step).step for step in store.steps()] == [1, 2, 3]


def test_writing_in_place_would_be_noticed(fresh: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def in_place(path: Path, data: bytes, *, durable: bool = True) -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for part in (data[:50], data[50:]):
            os.write(fd, part)
        os.close(fd)

    monkeypatch.setattr(files, "write_atomic", in_place)
    verdicts = [verdict for _, verdict in in_process_trials("pin", None, fresh)]
    assert any("pins.json" in loss for verdict in verdicts for loss in verdict.losses)


def test_a_swallowed_error_would_be_noticed() -> None:
    old, new = State(runs=("first",), pins={1: "a"}), State(runs=("first",), pins={2: "b"})
    old.checkpoints = new.checkpoints = {1: ("x", True), 2: ("y", True)}
    assert judge(old, new, new, ended=0, said="").losses == []
    assert judge(old, new, old, ended=-9, said="").losses == []
    assert judge(old, new, old, ended=5, said="The disk is full.\n").losses == []
    assert judge(old, new, old, ended=0, said="").losses == ["it ended as if it had succeeded, and nothing is new"]
    assert "not an error for a person" in judge(old, new, old, ended=1, said="Traceback\nOSError: x\n").losses[0]


@needs_strace
def test_a_few_real_system_calls(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    trials = [trial for act in ("pin", "lighten") for trial in syscalls.trials_of(rig, act)]
    assert {"write", "fsync", "rename", "unlink", "openat"} <= {trial.call.name for trial in trials}
    tallies = syscalls.injected(rig, random.Random(1).sample(trials, 4))
    assert sum(tally.trials for tally in tallies.values()) == 4
    assert [word for tally in tallies.values() for word in tally.words] == []


@needs_strace
def test_a_fault_that_misses_its_call_is_no_trial(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    for fault in ("error=EIO", "signal=KILL"):
        assert rig.judged(Trial("pin", Call("fsync", 99, 0, ""), fault)) is None


def test_short_writes_are_told_and_leave_the_old_state(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    tally = syscalls_full.limited(rig, [("save", 60), ("save", 20_000), ("pin", 60), ("pin", 20_000)])
    assert tally.words == [] and tally.trials == 4
    assert tally.told == 3, "a save at both limits, a pin at the smaller one"


@pytest.mark.slow
@pytest.mark.timeout(3600)
@needs_strace
def test_every_system_call(tmp_path: Path) -> None:
    rows = syscalls.run(full=True, folder=tmp_path, seed=1)
    assert [row for row in rows if row.losses or row.silent] == []
    assert sum(row.trials for row in rows) > 1_000
