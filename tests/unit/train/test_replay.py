"""Replay: the last steps again, equal to the bit, and what it says when they are not."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from ondevice.errors import DeviceError, UsageError
from ondevice.run import control
from ondevice.run.directory import RunDir
from ondevice.run.files import json_bytes, read_json
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train import replay as module
from ondevice.train.launch import launch
from ondevice.train.replay import replay
from tests.displays import Silent


def trained(run: RunDir) -> RunDir:
    launch(run, display=Silent())
    return run


def content(run: RunDir) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def recommit(run: RunDir, step: int, name: str, change) -> None:
    """The checkpoint of a step with one file changed, as if it had been saved like that."""
    store = Store(run.checkpoints)
    checkpoint = store.open(step)
    files = {each: (checkpoint.path / each).read_bytes() for each in checkpoint.files}
    files[name] = change(files[name])
    os.rename(checkpoint.path, run.path / "old")
    with store.draft(step) as draft:
        for each, data in files.items():
            with draft.file(each) as file:
                file.write(data)
        draft.commit(checkpoint.facts)


@pytest.mark.parametrize(
    "changes",
    [
        ('model.arch="gpt2"', 'train.optimizer="muon"', "model.dropout=0.1"),
        ('model.arch="llama"', 'train.optimizer="adamw"', "model.dropout=0.2", "fit.activation_checkpointing=true"),
    ],
)
def test_the_last_steps_are_identical_and_nothing_is_written(make, changes):
    run = make("train.steps=12", "limits.save_every_steps=5", "eval.count=7", *changes)
    control.send(run, "eval", sender="test")
    trained(run)
    before, seen = content(run), []
    found = replay(run, progress=lambda step, last: seen.append((step, last)))
    assert (found.first, found.last, found.differences) == (10, 12, [])
    assert found.identical and found.unheard == [] and found.elsewhere == []
    assert seen == [(10, 12), (11, 12)]
    assert content(run) == before


def test_evaluations_between_two_checkpoints_are_made_again(make):
    run = trained(make("train.steps=12", "limits.save_every_steps=6", "eval.count=13"))
    assert {r["step"] for r in read_records(run.telemetry) if r["kind"] == "eval"} >= {7, 8, 9}
    assert replay(run).differences == []
    state = read_json(Store(run.checkpoints).path(12) / "state.json")
    losses = [[step, loss if step != 9 else loss + 1e-9] for step, loss in state["losses"]]
    recommit(run, 12, "state.json", lambda _: json_bytes({**state, "losses": losses}))
    assert [text.partition(":")[0] for text in replay(run).differences] == ["losses in state.json"]


def flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[-3] ^= 1  # in the last tensor's numbers
    return bytes(changed)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
def test_one_changed_bit_is_named_with_its_tensor(make, name):
    run = trained(make("train.steps=6", "limits.save_every_steps=4"))
    recommit(run, 6, name, flipped)
    [text] = replay(run).differences
    assert text.endswith(f" in {name}") and "weight" in text and "more" not in text


def test_a_different_start_differs_everywhere(make):
    run = trained(make("train.steps=6", "limits.save_every_steps=4", "model.dropout=0.1"))
    state = read_json(Store(run.checkpoints).path(4) / "state.json")
    cursor = {**state["cursor"], "position": state["cursor"]["position"] + 6}
    recommit(run, 4, "state.json", lambda _: json_bytes({**state, "cursor": cursor}))
    found = replay(run).differences
    assert found[0].startswith("loss of step 5: was ")
    assert any("more tensors in model.safetensors" in text for text in found)
    assert any(text.startswith("cursor in state.json") for text in found)


def test_another_machine_is_refused_unless_told(make, monkeypatch):
    run = trained(make("train.steps=6", "limits.save_every_steps=4"))
    facts = module.exactness_facts(run.read_recipe())
    monkeypatch.setattr(module, "exactness_facts", lambda recipe: {**facts, "cpu_capability": "other"})
    with pytest.raises(DeviceError, match=r"cpu_capability was .*, is other\); add --replay-anyway"):
        replay(run)
    found = replay(run, anyway=True)
    assert found.identical and len(found.elsewhere) == 1


def test_one_checkpoint_is_not_enough_and_a_light_or_damaged_one_does_not_count(make):
    run = trained(make("train.steps=6", "limits.save_every_steps=2"))
    path = Store(run.checkpoints).path(6) / "model.safetensors"
    path.write_bytes(flipped(path.read_bytes()))
    assert (replay(run).first, replay(run).last) == (2, 4)
    path = Store(run.checkpoints).path(4) / "model.safetensors"
    path.write_bytes(flipped(path.read_bytes()))
    with pytest.raises(UsageError, match="from one complete checkpoint to the next, and there are 1"):
        replay(run)


def test_losses_that_are_not_in_telemetry_are_said_to_be_unheard(make):
    run = trained(make("train.steps=6", "limits.save_every_steps=4"))
    path = run.telemetry / "0001.jsonl"
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if b'"kind":"step","step":5,' not in line]
    path.write_bytes(b"".join(lines))
    found = replay(run)
    assert (found.unheard, found.identical) == ([5], True)
    assert dataclasses.asdict(found)["first"] == 4
