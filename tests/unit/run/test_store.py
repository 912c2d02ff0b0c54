"""The checkpoint store: what counts as a checkpoint, what pruning may take, and what a stranger may not do."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import CheckpointError, ResourceError
from ondevice.run.files import write_json, write_sealed
from ondevice.run.store import Store


def save(store: Store, step: int, *, content: bytes = b"weights", launch: int = 1) -> Any:
    with store.draft(step) as draft:
        with draft.file("model.safetensors") as file:
            file.write(content)
        return draft.commit({"launch": launch})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "checkpoints")


@pytest.fixture
def filled(store: Store) -> Store:
    for step in (100, 200, 300):
        save(store, step)
    return store


def test_an_empty_store(store: Store) -> None:
    assert (store.steps(), store.latest(), store.pins(), store.prune(())) == ([], (None, []), {}, [])
    store.sweep()
    with pytest.raises(CheckpointError, match=r"manifest\.json: no such file"):
        store.open(5)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 5; there are: none\.$"):
        store.pin(5, "x")


def test_a_committed_checkpoint_is_what_open_gives(store: Store) -> None:
    committed = save(store, 1200)
    assert committed == store.open(1200) == store.latest()[0]
    assert committed.path.name == "step-00001200"
    assert committed.facts == {"launch": 1}
    assert committed.manifest["files"]["model.safetensors"]["bytes"] == 7
    assert len(committed.sha256) == 64
    assert (committed.path.stat().st_mode & 0o777, store.folder.stat().st_mode & 0o777) == (0o700, 0o700)


def test_a_draft_that_is_not_committed_vanishes(filled: Store) -> None:
    with pytest.raises(ZeroDivisionError), filled.draft(400) as draft, draft.file("model.safetensors") as file:
        file.write(b"half")
        raise ZeroDivisionError
    with filled.draft(500) as draft, draft.file("model.safetensors") as file:
        file.write(b"whole, but never committed")
    assert sorted(path.name for path in filled.folder.iterdir()) == [f"step-00000{n}00" for n in (1, 2, 3)]


def test_an_intact_checkpoint_is_not_deleted_for_its_successor(filled: Store) -> None:
    first = filled.open(300)
    assert save(filled, 300, content=b"other", launch=2) == first == filled.open(300)
    (first.path / "model.safetensors").write_bytes(b"damaged")
    replaced = save(filled, 300, content=b"other", launch=2)
    assert replaced == filled.open(300) and replaced.facts == {"launch": 2}


def test_a_commit_takes_the_place_of_any_rubbish(store: Store, tmp_path: Path) -> None:
    save(store, 100)
    store.path(200).mkdir()
    store.path(300).write_text("a file")
    store.path(400).symlink_to(tmp_path)
    for step in (200, 300, 400):
        assert save(store, step) == store.open(step)
    assert store.steps() == [100, 200, 300, 400]
    assert tmp_path.is_dir()


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            errno.ENOSPC,
            "the disk is full, no checkpoint was written; free some space, older checkpoints are untouched.",
        ),
        (errno.EIO, "no checkpoint was written (Input/output error); older checkpoints are untouched."),
    ],
)
def test_a_failed_save_is_one_sentence(filled: Store, monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    def fail(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(ResourceError) as caught:
            save(filled, 400)
    assert str(caught.value) == f"{filled.folder}: {words}"
    assert filled.steps() == [100, 200, 300]
    assert not list(filled.folder.glob(".tmp-*"))


def test_short_writes_make_a_whole_checkpoint(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:100]))
    save(store, 1, content=b"x" * 1050)
    assert store.open(1).manifest["files"]["model.safetensors"]["bytes"] == 1050


def test_latest_falls_back_and_says_why(filled: Store) -> None:
    (filled.path(300) / "model.safetensors").write_bytes(b"WEIGHTS")
    (filled.path(200) / "manifest.json").write_bytes(b"{}")
    newest, damage = filled.latest()
    assert newest == filled.open(100)
    assert damage[0].endswith("step-00000300/model.safetensors: its content changed since it was saved (hash differs).")
    assert damage[1].endswith("step-00000200/manifest.json: damaged, it has no version.")
    assert filled.steps() == [100, 200, 300], "nothing is deleted for being damaged"


def test_other_folders_are_no_checkpoints(filled: Store, tmp_path: Path) -> None:
    for name in ("step-1", "step-0000000300x", "step-000000300", "step-٠٠٠٠٠٠٠١", "step-00000400\n", "Step-00000500"):
        (filled.folder / name).mkdir()
        (filled.folder / name / "manifest.json").write_text("{}")
    (filled.folder / "step-00000600").symlink_to(filled.path(100))
    assert filled.steps() == [100, 200, 300]
    with pytest.raises(CheckpointError, match="step-00000600: is a symbolic link"):
        filled.open(600)


MANIFESTS: list[tuple[dict[str, Any], str]] = [
    ({"v": 2}, "format 2, this program reads 1; update ondevice."),
    ({"step": 200}, "is of step 200, not 100."),
    ({"step": "100"}, "is of step 100, not 100."),
    ({"files": []}, "not a manifest."),
    ({"facts": None}, "not a manifest."),
    ({"files": {"../../escape.json": {}}}, "names a file that no checkpoint has ('../../escape.json')."),
    ({"files": {"/etc/passwd": {}}}, "names a file that no checkpoint has ('/etc/passwd')."),
    ({"files": {"model.safetensors\n": {}}}, "names a file that no checkpoint has"),
    ({"files": {"manifest.json": {}}}, "names a file that no checkpoint has ('manifest.json')."),
    ({"files": {"model.safetensors": []}}, "names a file that no checkpoint has"),
    ({"files": {"model.safetensors": {}}}, "wrong size, the file is damaged."),
    ({"files": {"model.safetensors": {"bytes": 10**30}}}, "wrong size, the file is damaged."),
    ({"files": {"model.safetensors": {"bytes": 7, "sha256": 5}}}, "its content changed since it was saved"),
    ({"files": {"gone.json": {"bytes": 7}}}, "gone.json: cannot be read (No such file or directory)."),
    ({"dropped": ["model.safetensors"]}, "not a manifest."),
    ({"dropped": []}, "not a manifest."),
    ({"dropped": None}, "not a manifest."),
]


@pytest.mark.parametrize(("change", "words"), MANIFESTS)
def test_forged_manifests_are_refused(filled: Store, change: dict[str, Any], words: str) -> None:
    write_sealed(filled.path(100) / "manifest.json", {**filled.open(100).manifest, **change})
    with pytest.raises(CheckpointError) as caught:
        filled.open(100)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_manifest_without_its_seal_is_refused(filled: Store) -> None:
    write_json(filled.path(100) / "manifest.json", filled.open(100).manifest)
    with pytest.raises(CheckpointError, match="its content changed since it was written"):
        filled.open(100)


def test_sweep_takes_what_crashes_left_and_nothing_else(filled: Store) -> None:
    (filled.folder / ".tmp-400-77").mkdir()
    (filled.folder / ".tmp-400-77" / "model.safetensors").touch()
    (filled.folder / ".tmp-pins.json-77-ab").touch()
    (filled.path(100) / "manifest.json").unlink()
    (filled.path(200) / "manifest.json").write_bytes(b"damaged")
    filled.pin(300, "best")
    (filled.folder / "notes.txt").touch()
    filled.sweep()
    left = sorted(path.name for path in filled.folder.iterdir())
    assert left == ["notes.txt", "pins.json", "step-00000200", "step-00000300"]


def test_pins_are_kept_with_their_reason(filled: Store) -> None:
    filled.pin(200, "before the new text")
    filled.pin(100, "first")
    assert filled.pins() == {100: "first", 200: "before the new text"}
    filled.pin(100, None)
    assert filled.pins() == {200: "before the new text"}
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 250; there are: 100, 200, 300\.$"):
        filled.pin(250, "x")
    filled.prune({100, 300})
    filled.pin(200, None)
    assert filled.pins() == {}


@pytest.mark.parametrize(
    "write",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b'{"v": 1, "pins": {}}'),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("nowhere"),
        lambda path: write_sealed(path, {"v": 1, "pins": []}),
        lambda path: write_sealed(path, {"v": 1}),
        lambda path: write_sealed(path, {"v": 1, "pins": {"x": "y"}}),
    ],
)
def test_damaged_pins_are_never_taken_for_no_pins(filled: Store, write: Any) -> None:
    write(filled.folder / "pins.json")
    for act in (filled.pins, lambda: filled.pin(100, "x")):
        with pytest.raises(CheckpointError, match=r"pins\.json: .*Restore it from a copy, or delete it to unpin every"):
            act()


def test_newer_pins_are_refused(filled: Store) -> None:
    write_sealed(filled.folder / "pins.json", {"v": 2})
    with pytest.raises(CheckpointError, match=r"pins\.json: format 2, this program reads 1; update ondevice\.$"):
        filled.pins()


def test_a_lease_keeps_a_checkpoint(filled: Store) -> None:
    with filled.lease(100) as leased, filled.lease(100):
        assert leased == filled.open(100)
        assert Store(filled.folder).prune({300}) == [200]
        assert filled.steps() == [100, 300]
    assert filled.prune({300}) == [100]


def test_a_lease_on_nothing_is_one_sentence(filled: Store) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint of step 5"), filled.lease(5):
        pass
    (filled.path(100) / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"), filled.lease(100):
        pass
    assert filled.prune({200, 300}) == [100], "a failed lease is no lease"


def test_a_lease_that_comes_too_late_says_so(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    real = fcntl.flock

    def prune_first(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        filled.prune({200, 300})
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", prune_first)
    with pytest.raises(CheckpointError, match="no such file"), filled.lease(100):
        pass


def test_what_cannot_be_deleted_now_is_left_for_later(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.unlink

    def fail(path: Any, **kwargs: Any) -> None:
        if "00000100" in str(path):
            raise OSError(errno.EACCES, "Permission denied")
        real(path, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        assert filled.prune({300}) == [200]
    assert filled.open(100).step == 100
    assert filled.prune({300}) == [100]


def test_a_folder_that_cannot_be_listed_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(CheckpointError, match=r"checkpoints: cannot be read \(Not a directory\)\.$"):
        Store(tmp_path / "checkpoints").steps()


def test_file_names_are_checked_by_the_writer_too(store: Store) -> None:
    for name in ("../x.json", "manifest.json", "x.pt", "X.json", ".json"):
        with store.draft(1) as draft, pytest.raises(AssertionError), draft.file(name):
            pass


def test_writing_into_a_checkpoint_never_follows_a_link(store: Store) -> None:
    save(store, 1)
    with store.draft(2) as draft:
        (store.folder / f".tmp-2-{os.getpid()}" / "state.json").symlink_to(store.path(1) / "model.safetensors")
        with pytest.raises(FileExistsError), draft.file("state.json") as file:
            file.write(b"x")
    assert store.open(1).step == 1
