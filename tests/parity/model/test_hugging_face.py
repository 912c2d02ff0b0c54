"""Folders that transformers wrote, read by us: the same logits for every family, whatever the file looks like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from ondevice.errors import CheckpointError, UsageError
from ondevice.model.build import build_model
from ondevice.model.frozen_decoder import fill
from ondevice.model.hugging_face import open_hugging_face

SMALL = {
    "vocab_size": 199,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 500.0,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"vocab_size": 199, "n_embd": 48, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "llama": ("llama", {**SMALL, "tie_word_embeddings": False}),
    "llama3": ("llama", {**SMALL, "tie_word_embeddings": True, "rope_parameters": LLAMA3}),
    "linear": ("llama", {**SMALL, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}),
    "smollm2": ("llama", {**SMALL, "tie_word_embeddings": True, "rope_theta": 1e5, "rms_norm_eps": 1e-5}),
    "mistral": ("mistral", {**SMALL, "sliding_window": 64}),
    "qwen2": ("qwen2", {**SMALL, "tie_word_embeddings": True, "rope_theta": 1e6}),
    "qwen2-untied": ("qwen2", {**SMALL, "tie_word_embeddings": False}),
}


def make(folder: Path, name: str, **saving: Any) -> transformers.PreTrainedModel:
    """A random model of a family, saved by transformers itself."""
    kind, settings = FAMILIES[name]
    config = transformers.AutoConfig.for_model(kind, **settings)
    torch.manual_seed(5)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.normal_(1.0 if key.endswith("weight") else 0.0, 0.2)
            else:
                parameter.normal_(0.0, 0.1)
    if dtype := saving.pop("dtype", None):
        model = model.to(dtype)
    model.save_pretrained(folder, **saving)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def assert_same(model: transformers.PreTrainedModel, folder: Path, *, context: int | None = None) -> None:
    opened = open_hugging_face(folder, context=context)
    ours = build_model(opened.shape, seed=None).eval()
    for name, first, part in opened.tensors():
        fill(ours, name, first, part)
    ids = torch.randint(199, (2, context or 64), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours.logits(ours(ids)), model(ids).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_its_logits(name, tmp_path):
    assert_same(make(tmp_path, name), tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_shards_and_half_precision(name, tmp_path):
    model = make(tmp_path, name, max_shard_size="20KB", dtype=torch.bfloat16)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same(model, tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "mistral"])
def test_a_shorter_context_changes_nothing_but_the_length(name, tmp_path):
    assert_same(make(tmp_path, name), tmp_path, context=24)
    with pytest.raises(UsageError, match="more than the 64 tokens"):
        open_hugging_face(tmp_path, context=65)


def test_an_older_config_with_rope_at_the_top(tmp_path):
    model = make(tmp_path, "llama3")
    raw = json.loads((tmp_path / "config.json").read_text())
    scaling = {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    raw.pop("rope_parameters")
    (tmp_path / "config.json").write_text(json.dumps({**raw, "rope_theta": 500.0, "rope_scaling": scaling}))
    assert_same(model, tmp_path)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "qwen"}, "none of gpt2, llama, mistral, qwen2"),
        ({"model_type": None}, "model_type None"),
        ({"hidden_act": "gelu"}, "'hidden_act' is 'gelu'"),
        ({"attention_bias": True}, "'attention_bias' is True"),
        ({"head_dim": 24}, "'head_dim' is 24"),
        ({"hidden_size": -4}, "'hidden_size' must be a whole number"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "the kind 'yarn'"),
        ({"num_key_value_heads": 3}, "does not divide"),
    ],
)
def test_what_we_cannot_compute_is_named(tmp_path, changes, words):
    make(tmp_path, "llama")
    edit(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=words):
        open_hugging_face(tmp_path)


def test_a_window_bounds_the_context(tmp_path):
    make(tmp_path, "mistral")
    edit(tmp_path, sliding_window=32)
    assert open_hugging_face(tmp_path).shape.context == 32
    with pytest.raises(UsageError, match="more than the 32 tokens"):
        open_hugging_face(tmp_path, context=48)


def test_a_weight_that_is_not_finite_and_a_missing_file(tmp_path):
    model = make(tmp_path, "gpt2")
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[3, 3] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"blocks\.1\.mlp\.up\.weight.*not finite"):
        list(open_hugging_face(tmp_path).tensors())
    (tmp_path / "config.json").unlink()
    with pytest.raises(CheckpointError, match="no folder of Hugging Face"):
        open_hugging_face(tmp_path)
