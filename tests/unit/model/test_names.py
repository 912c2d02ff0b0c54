from __future__ import annotations

import pytest
import torch

from ondevice.errors import CheckpointError
from ondevice.model.build import build_model
from ondevice.model.names import from_hugging_face, to_hugging_face
from ondevice.run.recipe import ModelShape


def test_there_and_back(shape):
    state = build_model(shape, seed=0).state_dict()
    again = from_hugging_face(shape, to_hugging_face(shape, state))
    assert list(again) == list(state)
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_files_without_prefix_with_buffers_and_with_a_tied_head_are_taken(shape):
    state = build_model(shape, seed=0).state_dict()
    tensors = to_hugging_face(shape, state)
    if shape.arch == "gpt2":
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 24, 24)
    else:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    tensors.setdefault("lm_head.weight", state["embed.weight"])
    again = from_hugging_face(shape, tensors)
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_each_missing_tensor_is_named(shape):
    state = build_model(shape, seed=0).state_dict()
    tensors = to_hugging_face(shape, state)
    for name in tensors:
        with pytest.raises(CheckpointError, match=name):
            from_hugging_face(shape, {other: tensors[other] for other in tensors if other != name})
    for name in state:
        with pytest.raises(CheckpointError, match=name):
            to_hugging_face(shape, {other: state[other] for other in state if other != name})


def test_unknown_tensors_are_refused(shape):
    tensors = to_hugging_face(shape, build_model(shape, seed=0).state_dict())
    with pytest.raises(CheckpointError, match=r"q_norm.*no place"):
        from_hugging_face(shape, {**tensors, "model.layers.0.self_attn.q_norm.weight": torch.ones(8)})


def test_other_shapes_are_refused_both_ways(shape):
    state = build_model(shape, seed=0).state_dict()
    tensors = to_hugging_face(shape, state)
    for name, tensor in tensors.items():
        with pytest.raises(CheckpointError, match=name):
            from_hugging_face(shape, {**tensors, name: torch.cat((tensor, tensor))})
    for name, tensor in state.items():
        with pytest.raises(CheckpointError):
            to_hugging_face(shape, {**state, name: torch.cat((tensor, tensor))})


def test_square_matrices_are_transposed_for_gpt2_only():
    common = {"vocab_size": 20, "context": 8, "layers": 1, "width": 16, "heads": 2, "kv_heads": 2, "hidden": 32}
    for arch, name in (
        ("gpt2", "transformer.h.0.attn.c_proj.weight"),
        ("llama", "model.layers.0.self_attn.o_proj.weight"),
    ):
        shape = ModelShape(arch=arch, **common)
        state = build_model(shape, seed=0).state_dict()
        ours = state["blocks.0.attn.out.weight"]
        assert torch.equal(to_hugging_face(shape, state)[name], ours.t() if arch == "gpt2" else ours)
