"""What lies at a path is found by its bytes; folders lead nowhere but into themselves."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from ondevice.errors import CheckpointError, DataError, ResourceError
from ondevice.model import safetensors
from ondevice.model.foreign import Weights, open_weights
from ondevice.run.store import Store

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4).bfloat16()}
INDEX = "model.safetensors.index.json"


def assert_same(weights: Weights, wanted: dict[str, torch.Tensor] = STATE) -> None:
    assert set(weights) == set(wanted) and len(weights) == len(wanted)
    assert all(weights[name].dtype is tensor.dtype and weights[name].equal(tensor) for name, tensor in wanted.items())


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        open_weights(path)
    message = str(caught.value)
    assert str(path) in message and message.endswith(".") and "\n" not in message and len(message) < 500
    return message


def shards(folder: Path, **changes: object) -> Path:
    """A folder of two shards with their index, whose map is changed."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(STATE, start=1):
        safetensors.write(folder / f"model-{number}.safetensors", {name: STATE[name]}, {})
    places = {"a": "model-1.safetensors", "b": "model-2.safetensors", **changes}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": places}))
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "weights.pt", "no suffix"])
def test_the_bytes_decide_not_the_name(tmp_path, name):
    path = tmp_path / name
    safetensors.write(path, STATE, {})
    weights = open_weights(path)
    assert_same(weights)
    assert (weights.format, weights.what, weights.files) == ("safetensors", "a safetensors file", (path,))
    torch.save({"model": STATE}, path)
    weights = open_weights(path)
    assert_same(weights)
    assert (weights.format, weights.what, weights.files) == ("torch", "a torch file", (path,))


def test_a_safetensors_file_that_begins_like_a_pickle(tmp_path):
    """A header of 128 bytes makes the first byte that of a pickle."""
    for length in range(200):
        safetensors.write(tmp_path / "x", {"a": torch.ones(1)}, {"pad": "x" * length})
        if (tmp_path / "x").read_bytes()[0] == 0x80:
            break
    assert (tmp_path / "x").read_bytes()[0] == 0x80
    assert open_weights(tmp_path / "x").format == "safetensors"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"GGUF\3\0\0\0" + bytes(100), "GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "download went wrong"),
        (b"\x1f\x8b\x08" + bytes(20), "gzip"),
        (b"\x80\x02}q\x00.", "old kind"),
        (b"PK\3\4", "not a sound torch file"),
        (b"", "neither a safetensors nor a torch file"),
        (b"hello", "neither"),
        (bytes(3000), "neither"),
        (b"\x10\0\0\0\0\0\0\0{", "beyond the file"),
    ],
)
def test_anything_else_is_named_and_refused(tmp_path, content, says):
    (tmp_path / "x").write_bytes(content)
    assert says in refusal(tmp_path / "x")


def test_a_missing_file_a_link_and_a_pipe(tmp_path):
    safetensors.write(tmp_path / "x", STATE, {})
    (tmp_path / "link").symlink_to("x")
    os.mkfifo(tmp_path / "pipe")
    assert "No such file" in refusal(tmp_path / "none")
    assert "symbolic link" in refusal(tmp_path / "link")
    assert "not a regular file" in refusal(tmp_path / "pipe")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_with_one_file(tmp_path, name):
    if name == "pytorch_model.bin":
        torch.save(STATE, tmp_path / name)
    else:
        safetensors.write(tmp_path / name, STATE, {})
        torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")  # safetensors goes first
    weights = open_weights(tmp_path)
    assert_same(weights)
    assert weights.files == (tmp_path / name,) and name in weights.what


def test_a_folder_of_shards(tmp_path):
    weights = open_weights(shards(tmp_path))
    assert_same(weights)
    assert weights.what == "a folder of 2 safetensors files"
    assert [file.name for file in weights.files] == ["model-1.safetensors", "model-2.safetensors"]


def test_a_folder_of_torch_shards(tmp_path):
    for number, name in enumerate(STATE, start=1):
        torch.save({name: STATE[name]}, tmp_path / f"pytorch_model-{number}.bin")
    places = {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same(open_weights(tmp_path))


@pytest.mark.parametrize(
    "place",
    [
        *("../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", ".", "", ".hidden", "a\\b", "a\nb", "x\0", "~"),
        *(3, None, ["model-1.safetensors"], "x" * 300, "C:x"),
    ],
)
def test_an_index_leads_nowhere_else(tmp_path, place):
    safetensors.write(tmp_path / "x.safetensors", {"a": STATE["a"]}, {})
    assert "no file of this folder" in refusal(shards(tmp_path / "model", a=place))


def test_a_shard_that_is_a_link_is_refused(tmp_path):
    folder = shards(tmp_path / "model")
    (folder / "model-1.safetensors").rename(tmp_path / "outside")
    (folder / "model-1.safetensors").symlink_to(tmp_path / "outside")
    assert "model-1.safetensors: is a symbolic link" in refusal(folder)
    (folder / INDEX).rename(tmp_path / "index")
    (folder / INDEX).symlink_to(tmp_path / "index")
    assert "index.json: is a symbolic link" in refusal(folder)


def test_index_and_shards_must_agree(tmp_path):
    assert "has no tensor 'c'" in refusal(shards(tmp_path / "1", c="model-1.safetensors"))
    assert "has no tensor 'b'" in refusal(shards(tmp_path / "2", b="model-1.safetensors"))
    folder = shards(tmp_path / "3")
    safetensors.write(folder / "model-1.safetensors", {"a": STATE["a"], "b": STATE["b"]}, {})
    assert "has a tensor 'b' that model.safetensors.index.json does not list" in refusal(folder)
    assert "No such file" in refusal(shards(tmp_path / "4", a="model-3.safetensors"))
    folder = shards(tmp_path / "5")
    torch.save({"a": STATE["a"]}, folder / "model-1.safetensors")
    assert "different formats" in refusal(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b'{"weight_map":{}}', b'{"weight_map":[]}', b"\xff\xfe", b"[" * 100_000, b" " * 10_000_001],
)
def test_an_index_that_is_none(tmp_path, content):
    (tmp_path / INDEX).write_bytes(content)
    assert INDEX in refusal(tmp_path)


def test_an_index_of_a_thousand_files(tmp_path):
    places = {str(number): f"{number}.safetensors" for number in range(1001)}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": places}))
    assert "the limit is 1000" in refusal(tmp_path)


def test_a_folder_without_weights(tmp_path):
    assert "no weights in it" in refusal(tmp_path)


def checkpoint(run: Path, step: int, state: dict[str, torch.Tensor]) -> Path:
    with Store(run / "checkpoints").draft(step) as draft:
        with draft.file("model.safetensors") as file:
            safetensors.write(file, state, {})
        return draft.commit({}).path


def test_a_checkpoint_of_ours_must_verify(tmp_path, monkeypatch):
    path = checkpoint(tmp_path, 12, STATE)
    weights = open_weights(path)
    assert_same(weights)
    assert weights.what == "a checkpoint of ours, step 12"
    monkeypatch.chdir(path)
    assert_same(open_weights(Path(".")))
    data = bytearray((path / "model.safetensors").read_bytes())
    data[-1] ^= 1  # a weight: no reader of the format would notice
    (path / "model.safetensors").write_bytes(data)
    assert "hash differs" in refusal(path)


def test_a_run_gives_its_newest_checkpoint_that_verifies(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(DataError, match=r"run\.json"):
        open_weights(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"layout": 1}))
    assert "it has not saved yet" in refusal(tmp_path)
    checkpoint(tmp_path, 12, STATE)
    newest = checkpoint(tmp_path, 24, {"a": torch.zeros(1)})
    assert len(open_weights(tmp_path)) == 1
    (newest / "model.safetensors").unlink()
    weights = open_weights(tmp_path)
    assert_same(weights)
    assert weights.what == "a run of ours, its checkpoint of step 12"


@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_weights_larger_than_the_memory_are_refused(tmp_path, form):
    path = tmp_path / "x"
    state = {"a": torch.zeros(1 << 19)}
    safetensors.write(path, state, {}) if form == "safetensors" else torch.save(state, path)
    assert len(open_weights(path, available_mb=2.0)) == 1
    with pytest.raises(ResourceError, match="2 MiB and 1 MiB of memory are free"):
        open_weights(path, available_mb=1.0)


def test_tensors_outlive_their_files(tmp_path):
    weights = open_weights(shards(tmp_path))
    for file in weights.files:
        file.unlink()
    assert_same(weights)
