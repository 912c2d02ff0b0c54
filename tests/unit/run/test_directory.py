"""Run directories: made, found, locked, renamed and removed in one instant each."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import CheckpointError, DataError, DeviceError, RunBusy, UsageError
from ondevice.run import create, directory
from ondevice.run.create import create_run, remove_run, rename_run
from ondevice.run.directory import (
    RunDir,
    RunLock,
    disk_usage,
    find_run,
    home,
    list_runs,
    lock_holder,
    offline_lock,
    safe_name,
)
from ondevice.run.files import write_json

NewRun = Callable[[str], RunDir]

HOLD = """
import sys
from pathlib import Path
from ondevice.run.directory import RunDir, RunLock
lock = RunLock(RunDir(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def trainer(run: RunDir) -> Any:
    """A process that holds the run's lock."""
    command = [sys.executable, "-c", HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_new_run_is_complete_and_private(run: RunDir) -> None:
    assert sorted(path.name for path in run.path.iterdir()) == [
        "checkpoints",
        "config.toml",
        "control",
        "evals",
        "exports",
        "fit.json",
        "logs",
        "recipe.json",
        "run.json",
        "telemetry",
        "tokenizer",
    ]
    assert run.path.stat().st_mode & 0o777 == 0o700
    assert run.read_identity()["layout"] == 2 and run.read_identity()["parent"] is None
    assert run.read_recipe().train.steps == 100
    assert run.next_launch() == 1
    assert [path.name for path in run.path.parent.iterdir()] == ["notes"]


def test_a_run_is_never_made_over_another(run: RunDir, new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run.identity.read_bytes()
    with pytest.raises(UsageError, match="a run of this name exists; choose another name or `ondevice runs rm notes`"):
        new_run("notes")
    # Two at once: the other one appears after we looked.
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    with pytest.raises(UsageError, match="a run of this name exists"):
        new_run("notes")
    assert run.identity.read_bytes() == before
    assert [path.name for path in run.path.parent.iterdir()] == ["notes"]


def test_what_is_no_run_is_not_called_one(home_folder: Path, new_run: NewRun) -> None:
    """`runs rm`, which removes a run that is in the way, would say that there is none."""
    (home_folder / "runs" / "notes" / "telemetry").mkdir(parents=True)
    with pytest.raises(UsageError, match="notes: something that is no run lies there; move it away"):
        new_run("notes")
    assert (home_folder / "runs" / "notes" / "telemetry").is_dir()


def test_a_failed_birth_leaves_nothing(home_folder: Path, recipe: Any) -> None:
    def full(folder: Path) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    with pytest.raises(DataError, match=r"notes: cannot be written \(Permission denied\)\.$"):
        create_run(
            home_folder / "runs" / "notes", config_toml="", recipe=recipe, fit=_fit(), save_tokenizer=full, parent=None
        )
    assert list((home_folder / "runs").iterdir()) == []


def _fit() -> Any:
    from ondevice.run.recipe import Fit

    return Fit(micro_batch=1, threads=1, activation_checkpointing=False, loss_chunk_tokens=16)


def test_what_killed_commands_left_is_swept(new_run: NewRun, home_folder: Path) -> None:
    runs = home_folder / "runs"
    for name in (".ondevice-new-a-1", ".ondevice-new-b-2", ".ondevice-rm-c-3", ".other"):
        (runs / name / "deep").mkdir(parents=True)
    os.utime(runs / ".ondevice-new-a-1", (0, 0))
    new_run("notes")
    assert sorted(path.name for path in runs.iterdir()) == [".ondevice-new-b-2", ".other", "notes"]


def test_runs_are_found_by_name_and_by_path(run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(run.telemetry)
    for name in ("notes", str(run.path), "..", "../", "../../notes", "notes/telemetry/..", "notes/"):
        assert find_run(name) == run, name
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_run("~/home/runs/notes") == run


@pytest.mark.parametrize(
    "name", ["", " ", ".", "/", "nots", "notes/telemetry", "~no-such-user/x", "x" * 300, "a/b", "ü", "\udcff"]
)
def test_odd_names_are_no_run(run: RunDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^[^\n]+: no such run.*\.$"):
        find_run(name)


def test_the_refusal_offers_the_nearest_or_the_first_command(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as caught:
        find_run("nots")
    assert str(caught.value) == "nots: no such run (did you mean 'notes'?)."
    with pytest.raises(UsageError) as caught:
        find_run("zzz")
    assert str(caught.value) == "zzz: no such run; runs here: notes."
    monkeypatch.setenv("ONDEVICE_HOME", str(run.path / "empty"))
    with pytest.raises(UsageError) as caught:
        find_run("zzz")
    assert str(caught.value) == "zzz: no such run; there are no runs yet: `ondevice quickstart`."


def test_runs_are_listed_by_name(new_run: NewRun, home_folder: Path) -> None:
    assert list_runs() == []
    for name in ("b", "a"):
        new_run(name)
    (home_folder / "runs" / ".hidden").mkdir()
    (home_folder / "runs" / ".hidden" / "run.json").write_text("{}")
    (home_folder / "runs" / "file").write_text("x")
    assert [run.name for run in list_runs()] == ["a", "b"]
    assert home() == home_folder


@pytest.mark.parametrize(
    ("identity", "error", "words"),
    [
        ({"layout": 3}, CheckpointError, "run directory of layout 3, this program knows layout 2; update ondevice."),
        (
            {"layout": "1"},
            DataError,
            "not a run's identity; repair it with `ondevice doctor notes`, or restore it from a copy of the run.",
        ),
        ({"layout": 2, "v": 2}, DataError, "damaged, its content changed since it was written (hash differs). Repair"),
        ({"layout": True}, DataError, "not a run's identity"),
        ({"layout": 0}, DataError, "not a run's identity"),
        ([], DataError, "not a run's identity"),
        (None, DataError, "not a run's identity"),
    ],
)
def test_other_layouts_are_refused(run: RunDir, identity: Any, error: type, words: str) -> None:
    write_json(run.identity, identity)
    with pytest.raises(error) as caught:
        find_run("notes")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Notes", "notes"),
        ("My Notes!", "my-notes"),
        ("..", "run"),
        ("", "run"),
        ("../etc", "etc"),
        (".hidden", "hidden"),
        ("a/b", "a-b"),
        ("ü", "run"),
        ("x" * 300, "x" * 100),
        ("x" * 99 + "-y", "x" * 99),
    ],
)
def test_safe_names(text: str, name: str) -> None:
    assert safe_name(text) == name == safe_name(name)


def test_rename_and_remove(run: RunDir, new_run: NewRun) -> None:
    other = new_run("mail")
    renamed = rename_run(run, "diary")
    assert find_run("diary") == renamed and not run.path.exists()
    for name, words in (("mail", "a run of this name exists"), ("My Diary", "such as 'my-diary'"), ("", "such as")):
        with pytest.raises(UsageError, match=words):
            rename_run(renamed, name)
    remove_run(renamed)
    assert list_runs() == [other]
    assert [path.name for path in other.path.parent.iterdir()] == ["mail"]
    with pytest.raises(UsageError, match="the run is gone"):
        remove_run(renamed)


def test_a_half_removed_run_frees_its_name(run: RunDir, new_run: NewRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(create.shutil, "rmtree", fail)
        with pytest.raises(DataError, match=r"notes: cannot be deleted \(Input/output error\)\.$"):
            remove_run(run)
    assert list_runs() == []
    new_run("notes")
    assert [path.name for path in run.path.parent.iterdir()] == ["notes"]


def test_a_linked_run_is_not_removed(run: RunDir, tmp_path: Path) -> None:
    link = RunDir(tmp_path / "link")
    link.path.symlink_to(run.path)
    with pytest.raises(UsageError, match="is a symbolic link"):
        remove_run(link)
    assert run.identity.exists() and link.path.is_symlink()


def test_the_second_trainer_is_told_who_holds_the_run(
    run: RunDir, trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_LOCK_WAIT_S", 0.1)
    assert (lock_holder(run) or "").startswith(f"trainer pid {trainer.pid} boot ")
    with pytest.raises(RunBusy) as caught:
        RunLock(run)
    said = str(caught.value)
    assert said.startswith(f"notes: another process holds this run (trainer pid {trainer.pid} boot ")
    assert said.endswith("watch it with `ondevice status notes` or end it with `ondevice stop notes`.")
    for command in (remove_run, lambda held: rename_run(held, "other")):
        with pytest.raises(RunBusy):
            command(run)
    trainer.kill()
    trainer.wait()
    assert lock_holder(run) is None
    RunLock(run).release()


def test_a_glance_at_the_lock_does_not_turn_a_trainer_away(run: RunDir) -> None:
    run.lock.touch()
    with open(run.lock) as glance:
        fcntl.flock(glance, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, (glance, fcntl.LOCK_UN)).start()
        RunLock(run).release()


def test_the_lock_is_gone_with_its_release(run: RunDir) -> None:
    assert lock_holder(run) is None
    with offline_lock(run, what="ondevice doctor"):
        assert (lock_holder(run) or "").startswith(f"ondevice doctor pid {os.getpid()}")
    assert lock_holder(run) is None
    lock = RunLock(run)
    lock.release()
    lock.release()


def test_the_holder_sweeps_what_killed_writers_left(run: RunDir) -> None:
    (run.path / ".tmp-status.json-5-ab").touch()
    (run.inbox / ".tmp-fresh").touch()
    (run.inbox / ".tmp-old").touch()
    os.utime(run.inbox / ".tmp-old", (0, 0))
    RunLock(run).release()
    assert not list(run.path.glob(".tmp-*"))
    assert [path.name for path in run.inbox.iterdir()] == [".tmp-fresh"]


def test_a_lock_on_a_removed_run_is_no_lock(run: RunDir) -> None:
    lock = RunLock(run)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            RunLock(run).release()
        except UsageError as error:
            errors.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    run.path.rename(run.path.with_name("moved"))
    lock.release()
    waiting.join()
    assert "the run is gone" in str(errors[0])


def test_file_systems_without_locks_are_refused(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(DeviceError, match=r"this file system has no locks .*keep runs in your home folder"):
        RunLock(run)
    assert lock_holder(run) is None


def test_a_full_disk_does_not_forbid_the_lock(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)
    RunLock(run).release()


def test_disk_usage_counts_files_once(run: RunDir) -> None:
    before = disk_usage(run.path)
    (run.logs / "a").write_bytes(b"x" * 1000)
    (run.logs / "link").symlink_to("a")
    assert disk_usage(run.path) == before + 1000 + 1
