"""Light checkpoints: the optimizer state of an older one goes, its identity and its weights stay."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from ondevice.errors import CheckpointError
from ondevice.run.store import Checkpoint, Store

OPTIMIZER = "optimizer.safetensors"


def save(store: Store, step: int) -> Checkpoint:
    with store.draft(step) as draft:
        for name in ("model.safetensors", OPTIMIZER):
            with draft.file(name) as file:
                file.write(f"{name} of {step}".encode())
        return draft.commit({"launch": 1})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "checkpoints")
    for step in (1, 2, 3, 4):
        save(store, step)
    return store


def test_a_light_checkpoint_is_the_same_one_without_its_optimizer(store: Store) -> None:
    before = store.open(1)
    assert before.complete and before.dropped == ()
    assert store.lighten(1) is True
    light = store.open(1)
    assert (light.complete, light.dropped) == (False, (OPTIMIZER,))
    assert light.sha256 == before.sha256 and light.facts == before.facts
    assert light.manifest["files"] == before.manifest["files"], "what it once held can still be told"
    assert set(light.files) == {"model.safetensors"}
    assert sorted(path.name for path in light.path.iterdir()) == ["manifest.json", "model.safetensors"]
    assert (store.complete_steps(), store.steps()) == ([2, 3, 4], [1, 2, 3, 4])
    assert store.lighten(1) is True, "twice is once"
    assert store.open(1) == light


def test_the_newest_two_complete_ones_stay_whole(store: Store) -> None:
    for step in (3, 4):
        with pytest.raises(CheckpointError, match=r"fewer than two newer ones are complete; it must stay whole\.$"):
            store.lighten(step)
    (store.path(4) / OPTIMIZER).unlink()  # damaged: no longer one of the two
    with pytest.raises(CheckpointError, match="must stay whole"):
        store.lighten(2)
    assert store.lighten(1) is True
    with pytest.raises(CheckpointError, match="no such file"):
        store.lighten(7)


def test_damage_of_a_light_one_is_noticed(store: Store) -> None:
    store.lighten(1)
    (store.path(1) / "model.safetensors").write_bytes(b"model.safetensors of 2")
    with pytest.raises(CheckpointError, match="content changed"):
        store.open(1)


def test_a_stale_manifest_cannot_bring_the_optimizer_back(store: Store) -> None:
    stale = (store.path(1) / "manifest.json").read_bytes()
    store.lighten(1)
    (store.path(1) / "manifest.json").write_bytes(stale)
    with pytest.raises(CheckpointError, match=r"optimizer\.safetensors: cannot be read"):
        store.open(1)
    assert store.complete_steps() == [2, 3, 4]


def test_a_leased_checkpoint_is_left_whole(store: Store) -> None:
    with store.lease(1):
        assert Store(store.folder).lighten(1) is False
        assert store.open(1).complete
    assert store.lighten(1) is True
    with store.lease(1) as light:
        assert not light.complete
        assert Store(store.folder).prune({3, 4}) == [2]


def test_a_lease_that_waited_for_the_lightening_protects_the_light_one(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is replaced while the lease waits: it must hold the new one, or pruning would not see it."""
    import fcntl

    real = fcntl.flock

    def lighten_first(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", real)
        assert Store(store.folder).lighten(1)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", lighten_first)
    with store.lease(1) as leased:
        assert not leased.complete
        assert Store(store.folder).prune({3, 4}) == [2]
    assert Store(store.folder).prune({3, 4}) == [1]


def test_what_cannot_be_unlinked_is_finished_by_the_next_sweep(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.unlink

    def fail(path: Any, **kwargs: Any) -> None:
        if str(path).endswith(OPTIMIZER):
            raise PermissionError(13, "Permission denied")
        real(path, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", fail)
        assert store.lighten(1) is True
    assert not store.open(1).complete and (store.path(1) / OPTIMIZER).exists()
    (store.path(2) / ".tmp-manifest.json-77-ab").touch()
    store.sweep()
    assert not (store.path(1) / OPTIMIZER).exists() and store.open(1).step == 1
    assert store.open(2).complete and not list(store.path(2).glob(".tmp-*"))


def test_training_goes_on_from_complete_ones_only(store: Store) -> None:
    for step in (1, 2):
        store.lighten(step)
    assert store.latest(complete=True) == (store.open(4), [])
    for step in (3, 4):
        (store.path(step) / "model.safetensors").write_bytes(b"damaged")
    found, damage = store.latest(complete=True)
    assert found is None
    assert [sentence.rpartition("/")[2].split(":")[0] for sentence in damage] == [
        "model.safetensors",
        "model.safetensors",
        "step-00000002",
        "step-00000001",
    ]
    assert damage[-1].endswith("has no optimizer state, training cannot go on from it.")
    newest, damage = store.latest()
    assert newest == store.open(2) and len(damage) == 2, "for reading, a light one will do"


def test_a_light_one_gives_way_to_a_complete_one_of_its_step(store: Store) -> None:
    store.lighten(1)
    assert save(store, 1).complete
    assert store.open(1).complete


def test_a_checkpoint_without_optimizer_has_nothing_to_drop(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for step in (1, 2, 3):
        with store.draft(step) as draft:
            with draft.file("model.safetensors") as file:
                file.write(b"x")
            draft.commit({})
    assert store.lighten(1) is False
    assert store.open(1).complete


def test_reading_back_asks_for_the_disk(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(os, "posix_fadvise", lambda fd, *rest: asked.append(rest), raising=False)
    store.open(4)
    assert asked == []
    store.open(4, from_disk=True)
    assert asked == [(0, 0, os.POSIX_FADV_DONTNEED)] * 2
    monkeypatch.delattr(os, "posix_fadvise")
    assert store.open(4, from_disk=True).step == 4, "a system without it reads what it has"


def test_a_pin_and_a_prune_in_two_threads_take_turns(store: Store) -> None:
    """Else a pin that was granted could name a checkpoint that is just going."""
    held, answers = threading.Event(), list[str]()

    def pin() -> None:
        held.wait()
        try:
            store.pin(1, "in time")
        except CheckpointError as error:
            answers.append(str(error))

    thread = threading.Thread(target=pin)
    thread.start()
    with store.changing:
        held.set()
        thread.join(0.1)
        assert thread.is_alive(), "a pin waits while retention decides"
        store.prune({2, 3, 4})
    thread.join(10)
    assert store.pins() == {}
    assert len(answers) == 1 and "no checkpoint of step 1" in answers[0]


@pytest.mark.parametrize("make", [lambda path: path.symlink_to("elsewhere"), os.mkfifo])
def test_a_manifest_that_is_no_file_cannot_hold_anyone_up(store: Store, make: Any) -> None:
    (store.path(1) / "manifest.json").rename(store.folder.parent / "elsewhere")
    make(store.path(1) / "manifest.json")
    with pytest.raises(CheckpointError), store.lease(1):
        pass
