"""Averages of checkpoints: the mean to the last bit of float32, a sound run, and what cannot be averaged."""

import json
from pathlib import Path

import pytest
import torch

from ondevice.cli.main import main
from ondevice.errors import CheckpointError, UsageError
from ondevice.model import safetensors
from ondevice.run.directory import find_run
from ondevice.run.store import Store
from ondevice.study.average import average_run, window


def weights(run, step):
    with safetensors.open_file(Store(run.checkpoints).path(step) / "model.safetensors") as file:
        return {name: file.tensor(name).clone() for name in file.names}


def test_the_weights_are_the_mean_and_the_run_is_sound(own, capsys):
    steps = Store(own.checkpoints).steps()[-3:]
    assert main(["average", "tiny", "--last", "3", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    child = find_run(made["run"])
    assert made["steps"] == steps and child.name == f"tiny-average-{steps[0]}-{steps[-1]}"
    (step,) = Store(child.checkpoints).steps()
    before, found = [weights(own, each) for each in steps], weights(child, step)
    for name, tensor in found.items():
        expected = torch.stack([each[name].double() for each in before]).mean(dim=0).float()
        assert torch.equal(tensor, expected) and not torch.equal(tensor, before[-1][name])
    averaged = child.read_identity()["parent"]["averaged"]
    assert [each for each, _ in averaged] == steps
    assert main(["verify", child.name]) == 0
    assert main(["generate", child.name, "the", "--max-new-tokens", "3"]) == 0
    assert main(["select", child.name, "--per-source", "2", "--max-new-tokens", "4"]) == 0


def test_the_same_average_twice_is_one_run(own):
    steps = Store(own.checkpoints).steps()[-2:]
    assert average_run(own, steps).path == average_run(own, steps).path
    with pytest.raises(UsageError, match="exists"):
        average_run(own, Store(own.checkpoints).steps()[:2], name=average_run(own, steps).name)


def test_an_average_can_be_trained_on(own):
    child = average_run(own, Store(own.checkpoints).steps()[-2:])
    assert main(["train", child.name, "--quiet"]) == 0
    assert Store(child.checkpoints).steps()[-1] == 13


def test_windows():
    assert window([1, 2, 5, 9], first=2, last=None, count=None) == [2, 5, 9]
    assert window([1, 2, 5, 9], first=None, last=5, count=2) == [2, 5]
    with pytest.raises(UsageError, match="there are: 1, 2, 5, 9"):
        window([1, 2, 5, 9], first=6, last=None, count=None)


def test_a_damaged_one_is_named(own, capsys):
    steps = Store(own.checkpoints).steps()
    path = Store(own.checkpoints).path(steps[-2]) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"step-{steps[-2]:08d}"):
        average_run(own, steps[-3:])
    assert main(["average", "tiny"]) == 2
    assert "--last" in capsys.readouterr().err


def test_select_measures_averages_beside_the_checkpoints(own, capsys):
    average_run(own, Store(own.checkpoints).steps()[-2:], name="mean")
    words = ["select", "tiny", "--steps", *map(str, Store(own.checkpoints).steps()[-2:])]
    assert main([*words, "--per-source", "2", "--max-new-tokens", "4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (row,) = result["averages"]
    assert (row["run"], row["steps"]) == ("mean", Store(own.checkpoints).steps()[-2:])
    assert row["against_practical"]["n"] == result["prompts"]["n"] == 4
    practical = next(each for each in result["checkpoints"] if each["step"] == result["roles"]["practical"])
    assert row["against_practical"]["estimate"] == pytest.approx(row["quality"] - practical["quality"])
    assert set(result["roles"].values()) <= set(Store(own.checkpoints).steps())
    assert main([*words, "--per-source", "2", "--max-new-tokens", "4"]) == 0
    assert "mean, the mean of steps" in capsys.readouterr().out
    assert main(["report", "tiny", "--out", "page"]) == 0
    assert "| mean | " in Path("page/report.md").read_text("utf-8")
