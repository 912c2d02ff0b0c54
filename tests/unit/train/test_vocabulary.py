"""Runs that train with the tokens that occur: the others cost no memory and come back as the base has them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.data.tokenizer_files import save_tokenizer
from ondevice.infer.open import load_decoder
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.build import build_model
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.safetensors import open_file, write
from ondevice.run.files import write_json
from ondevice.run.recipe import ModelShape
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train.launch import launch, make_loop
from tests.displays import Silent
from tests.left import left_after

COMMON = {"vocab_size": 300, "context": 64, "layers": 2, "width": 32, "heads": 4, "hidden": 48}
SHAPES = {
    "llama": ModelShape(arch="llama", kv_heads=2, qkv_bias=True, **COMMON),
    "gpt2": ModelShape(arch="gpt2", kv_heads=4, tied=False, **COMMON),
}


def base_of(shape, folder):
    save_tokenizer(ByteTokenizer(), folder)
    state = build_model(shape, seed=77).state_dict()
    write(folder / "model.safetensors", to_hugging_face(shape, state), {"format": "pt"})
    write_json(folder / "config.json", hugging_face_config(shape))
    return folder


@pytest.fixture
def tuned(make, tmp_path):
    """``tuned("train.steps=6", arch="gpt2", name="x")`` -> a run with a trimmed vocabulary."""

    def build(*changes, arch="llama", name="tuned"):
        folder = tmp_path / arch
        if not folder.exists():
            base_of(SHAPES[arch], folder)
        sizes = [f"model.base={folder}", "model.layers=2", "model.width=32", "model.heads=4", "model.vocabulary=trimmed"]
        few = ["train.steps=6", "train.batch=2", "fit.micro_batch=2", "train.optimizer=adamw", "sample.count=1"]
        return make(*sizes, *few, *changes, name=name)

    return build


def test_try(tuned):
    run = tuned()
    recipe = run.read_recipe()
    print(recipe.vocabulary, recipe.why["model.vocabulary"])
    assert launch(run, display=Silent()).outcome == "finished"
