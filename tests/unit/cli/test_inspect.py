"""``ondevice inspect``: what weights are, or one sentence why they are not read."""

from __future__ import annotations

import pytest
import torch

from ondevice.device import memory
from ondevice.model import safetensors


def test_a_torch_file_with_tied_weights(tmp_path, call):
    weight = torch.ones(10, 4)
    path = tmp_path / "weights.pt"
    torch.save({"model": {"embed": weight, "head": weight, "norm": torch.ones(4).half(), "none": torch.ones(0)}}, path)
    facts = call("inspect", path, "--json").json
    assert facts == {
        "path": str(path),
        "format": "torch",
        "what": "a torch file",
        "files": [str(path)],
        "tensors": 4,
        "parameters": 44,
        "bytes": 168,
        "tied": 1,
        "dtypes": {
            "float32": {"tensors": 3, "parameters": 40, "bytes": 160},
            "float16": {"tensors": 1, "parameters": 4, "bytes": 8},
        },
        "sound": True,
    }
    result = call("inspect", path)
    assert result.code == 0 and not result.err
    assert result.out.splitlines() == [
        f"{path}: a torch file, sound.",
        "Tensors     4 (1 tied to another)",
        "Parameters  44 (float32 40, float16 4)",
        "Bytes       168",
    ]


def test_a_safetensors_file_and_its_folder(tmp_path, call):
    path = tmp_path / "model.safetensors"
    safetensors.write(path, {"a": torch.ones(3)}, {})
    assert call("inspect", path).out.startswith(f"{path}: a safetensors file, sound.\n")
    assert call("inspect", tmp_path, "--json").json["what"] == "a folder with the safetensors file model.safetensors"


def test_a_run_by_name_and_a_checkpoint_by_path(reading, call):
    facts = call("inspect", "tiny", "--json").json
    assert facts["what"] == "a run of ours, its checkpoint of step 12"
    assert facts["parameters"] > 10_000 and list(facts["dtypes"]) == ["float32"]
    [file] = facts["files"]
    beside = call("inspect", file.rpartition("/")[0], "--json").json
    assert beside["what"] == "a checkpoint of ours, step 12" and beside["parameters"] == facts["parameters"]


@pytest.mark.parametrize("words", [("inspect",), ("inspect", "--json")])
def test_what_is_not_sound_is_refused_in_one_sentence(tmp_path, call, words):
    path = tmp_path / "weights.pt"
    torch.save({"x": torch.ones(3).expand(5, 3)}, path)
    result = call(*words, path)
    assert result.code == 4
    assert result.error == f"{path}: tensor 'x' uses the same bytes for several of its elements."


@pytest.mark.parametrize(("word", "says"), [("none.pt", "no such file or folder, nor a run"), (" ", "is empty")])
def test_what_is_not_there(place, call, word, says):
    result = call("inspect", word)
    assert result.code == 2 and says in result.error


def test_weights_beyond_the_memory(tmp_path, call, monkeypatch):
    path = tmp_path / "weights.pt"
    torch.save({"x": torch.ones(1 << 19)}, path)
    monkeypatch.setattr(memory, "machine_memory", lambda: memory.MachineMemory(4.0, 1.0, 0.0, 0.0))
    result = call("inspect", path)
    assert result.code == 5 and "2 MiB and 1 MiB of memory are free" in result.error


def test_memory_that_cannot_be_read_forbids_nothing(tmp_path, call, monkeypatch):
    path = tmp_path / "weights.pt"
    torch.save({"x": torch.ones(3)}, path)

    def denied():
        raise PermissionError

    monkeypatch.setattr(memory, "machine_memory", denied)
    assert call("inspect", path).code == 0
