"""Storage abilities: all there on a real filesystem, each one missing in turn, and nothing left behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ondevice.device import storage
from ondevice.device.storage import probe_storage


def refuse(code: int) -> Callable[..., None]:
    def call(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return call


def test_everything_works_here_and_nothing_stays(tmp_path: Path) -> None:
    found = probe_storage(tmp_path)
    abilities = (
        found.writable,
        found.flock,
        found.atomic_replace,
        found.fsync_file,
        found.fsync_folder,
        found.symlinks,
    )
    assert abilities == (True,) * 6
    assert found.fit_for_runs and found.missing == () and found.unknown.keys() <= {"filesystem"}
    assert found.free_mb is not None and found.free_mb > 0
    assert list(tmp_path.iterdir()) == []
    assert json.loads(json.dumps(found.to_json()))["fit_for_runs"] is True


def test_hard_links_are_never_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "link")
    assert probe_storage(tmp_path).fit_for_runs


def test_shared_storage_of_a_phone_is_unfit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOSYS))
    monkeypatch.setattr(os, "symlink", refuse(errno.EPERM))
    found = probe_storage(tmp_path)
    assert (found.flock, found.symlinks, found.atomic_replace) == (False, False, True)
    assert not found.fit_for_runs and found.missing == ("flock",)
    assert found.unknown["flock"] == "function not implemented"
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_locks_nothing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    found = probe_storage(tmp_path)
    assert found.flock is False
    assert "second lock" in found.unknown["flock"]


def test_failing_fsync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    assert probe_storage(tmp_path).missing == ("fsync_file", "fsync_folder")


def test_failing_replace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", refuse(errno.EPERM))
    assert probe_storage(tmp_path).missing == ("atomic_replace",)


def test_unwritable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.tempfile, "mkdtemp", refuse(errno.EACCES))
    found = probe_storage(tmp_path)
    assert (found.writable, found.flock) == (False, None)
    assert not found.fit_for_runs
    assert found.unknown["writable"].startswith("permission denied")


def test_a_folder_not_made_yet_is_not_made(tmp_path: Path) -> None:
    found = probe_storage(tmp_path / "ondevice" / "runs")
    assert found.probed == str(tmp_path) and found.fit_for_runs
    assert list(tmp_path.iterdir()) == []


def test_filesystem_is_the_deepest_mount(tree: Any, tmp_path: Path) -> None:
    home = tmp_path / "my home" / "deep"
    home.mkdir(parents=True)
    escaped = str(tmp_path / "my home").replace(" ", r"\040")
    mounts = f"/dev/a / ext4 rw 0 0\n/dev/b {escaped} f2fs rw 0 0\n/dev/c {escaped}/deeper vfat rw 0 0\nbroken\n"
    tree.write("proc/self/mounts", mounts)
    assert probe_storage(home, proc=tree.proc).filesystem == "f2fs"


@pytest.mark.parametrize("mounts", ["", "none\n", None])
def test_unreadable_mounts(tree: Any, tmp_path: Path, mounts: str | None) -> None:
    if mounts is not None:
        tree.write("proc/self/mounts", mounts)
    found = probe_storage(tmp_path, proc=tree.proc)
    assert found.filesystem is None and "filesystem" in found.unknown
    assert found.fit_for_runs
