"""State to bytes and back: what a checkpoint says of itself, older versions, and what no training goes on from."""

from __future__ import annotations

import json

import pytest
import torch

from ondevice.errors import CheckpointError
from ondevice.run.files import read_json
from ondevice.run.recipe import Recipe
from ondevice.run.store import Store
from ondevice.train.checkpoint import freeze, load_training, tensor_bytes, write
from ondevice.train.launch import make_loop
from ondevice.train.state import MOST_LOSSES, TrainState
from tests.displays import Silent


@pytest.fixture
def loop(make):
    """A run two steps in, in this process."""
    loop = make_loop(make(name="two"), display=Silent())
    loop._step()
    loop._step()
    yield loop
    loop.keeper.close()
    loop.telemetry.close()


def saved(loop, store, **more):
    return write(store, freeze(loop.state, recipe=loop.recipe, fit=loop.fit, launch=1, **more))


def rewritten(checkpoint, folder, change):
    """A copy of a checkpoint with another ``state.json``, as another program might have written it."""
    raw = read_json(checkpoint.path / "state.json")
    change(raw)
    store = Store(folder)
    with store.draft(checkpoint.step) as draft:
        for name in ("model.safetensors", "optimizer.safetensors"):
            with draft.file(name) as file:
                file.write((checkpoint.path / name).read_bytes())
        with draft.file("state.json") as file:
            file.write(json.dumps(raw).encode())
        return draft.commit(checkpoint.facts)


def test_a_checkpoint_tells_what_came_before_it_and_the_whole_recipe(loop, tmp_path):
    before, position = {"step": 1, "sha256": "a" * 64}, loop.telemetry.position
    checkpoint = saved(loop, Store(tmp_path / "c"), previous=before, telemetry=position)
    assert checkpoint.facts["previous"] == before
    assert checkpoint.facts["telemetry"] == position and set(position) == {"launch", "bytes", "chain"}
    raw = read_json(checkpoint.path / "state.json")
    assert Recipe.from_json(raw["recipe"], where="state.json") == loop.recipe
    assert saved(loop, Store(tmp_path / "d")).facts["previous"] is None


def test_what_is_saved_is_what_is_loaded(loop, make, tmp_path):
    loop.state.measured(3.0)
    checkpoint = saved(loop, Store(tmp_path / "c"))
    size = sum(checkpoint.files[name]["bytes"] for name in ("model.safetensors", "optimizer.safetensors"))
    assert 0 <= size - tensor_bytes(loop.state) < 16_384, "what is checked for room is what is written, but for headers"
    other = make_loop(make(name="other"), display=Silent())
    load_training(checkpoint, other.state, loop.recipe)
    for mine, theirs in zip(loop.state.model.parameters(), other.state.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert (other.state.step, other.state.losses, other.state.best_step) == (2, {2: 3.0}, 2)
    assert other.state.cursor.state_dict() == loop.state.cursor.state_dict()
    other.keeper.close()
    other.telemetry.close()


def test_a_copied_state_is_written_as_the_state_itself(loop, tmp_path):
    settings = {"recipe": loop.recipe, "fit": loop.fit, "launch": 1}
    copied = freeze(loop.state, **settings, copied=True)
    there = write(Store(tmp_path / "there"), freeze(loop.state, **settings))
    loop._step()
    later = write(Store(tmp_path / "later"), copied)
    assert there.manifest["files"] == later.manifest["files"] and there.sha256 == later.sha256


def test_a_first_checkpoint_of_a_fork_may_begin_its_data_anew(loop, tmp_path):
    checkpoint = rewritten(saved(loop, Store(tmp_path / "c")), tmp_path / "fork", lambda raw: raw.update(cursor=None))
    loop.state.cursor.position = 0
    load_training(checkpoint, loop.state, loop.recipe)
    assert loop.state.cursor.position == 0 and loop.state.step == 2


def test_the_first_version_can_still_be_read(loop, tmp_path):
    def first_version(raw):
        for key in ("losses", "recipe"):
            del raw[key]
        raw.update(v=1, best_loss=1.5, best_step=2, best_saved=2)

    checkpoint = rewritten(saved(loop, Store(tmp_path / "c")), tmp_path / "old", first_version)
    load_training(checkpoint, loop.state, loop.recipe)
    assert loop.state.losses == {2: 1.5} and loop.state.best_step == 2


def test_other_versions_and_light_ones_are_refused(loop, tmp_path):
    store = Store(tmp_path / "c")
    checkpoint = saved(loop, store)
    newer = rewritten(checkpoint, tmp_path / "new", lambda raw: raw.update(v=3))
    with pytest.raises(CheckpointError, match="state version 3, this program reads 2"):
        load_training(newer, loop.state, loop.recipe)
    for step in (3, 4):
        loop.state.step = step
        saved(loop, store)
    assert store.lighten(2)
    with pytest.raises(CheckpointError, match="has no optimizer state, training cannot go on from it"):
        load_training(store.open(2), loop.state, loop.recipe)


def test_losses_are_bounded_and_the_worst_is_forgotten():
    state = TrainState(model=None, optimizer=None, cursor=None)
    for step in range(MOST_LOSSES + 5):
        state.step = step
        assert state.measured(float(MOST_LOSSES - step)), "each better than the last"
    assert len(state.losses) == MOST_LOSSES and min(state.losses) == 5
    state.step += 1
    assert not state.measured(1e9) and state.step not in state.losses
