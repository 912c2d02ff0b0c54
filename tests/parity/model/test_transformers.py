"""Our decoders against transformers' on the same weights."""

from __future__ import annotations

import pytest
import torch
import transformers

from ondevice.model.build import build_model
from ondevice.model.cache import KVCache
from ondevice.model.loss import linear_cross_entropy
from ondevice.model.names import from_hugging_face, hugging_face_config, to_hugging_face
from ondevice.run.recipe import ModelShape, RopeScaling

_SMALL = {"vocab_size": 211, "context": 40, "layers": 3, "width": 48, "norm_eps": 1e-5}
SHAPES = {
    "gpt2": ModelShape(arch="gpt2", heads=4, kv_heads=4, hidden=192, **_SMALL),
    "gpt2-untied": ModelShape(arch="gpt2", heads=3, kv_heads=3, hidden=100, tied=False, **_SMALL),
    "llama": ModelShape(arch="llama", heads=4, kv_heads=4, hidden=80, **_SMALL),
    "llama-grouped": ModelShape(arch="llama", heads=6, kv_heads=2, hidden=80, rope_theta=500_000.0, **_SMALL),
    "llama-stretched": ModelShape(
        arch="llama", heads=4, kv_heads=2, hidden=80, rope_scaling=RopeScaling(kind="linear", factor=4.0), **_SMALL
    ),
    "llama3": ModelShape(
        arch="llama",
        heads=4,
        kv_heads=2,
        hidden=80,
        rope_theta=500.0,
        rope_scaling=RopeScaling(kind="llama3", factor=8.0, low_frequency=1.0, high_frequency=4.0, original_context=16),
        **_SMALL,
    ),
    "qwen2": ModelShape(arch="llama", heads=6, kv_heads=2, hidden=80, qkv_bias=True, rope_theta=1e6, **_SMALL),
    "qwen2-untied": ModelShape(arch="llama", heads=4, kv_heads=4, hidden=80, qkv_bias=True, tied=False, **_SMALL),
    "llama-one-key-untied": ModelShape(arch="llama", heads=4, kv_heads=1, hidden=80, tied=False, **_SMALL),
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request: pytest.FixtureRequest) -> ModelShape:
    return request.param


def reference_model(shape: ModelShape) -> transformers.PreTrainedModel:
    """A model of transformers with every weight random, from our config."""
    raw = hugging_face_config(shape)
    config = transformers.AutoConfig.for_model(raw["model_type"], **{k: v for k, v in raw.items() if k != "model_type"})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = parameter.ndim == 1 and name.endswith("weight")
            parameter.normal_(1.0 if norm else 0.0, 0.2 if norm else 0.1, generator=generator)
    assert type(model).__name__ == raw["architectures"][0]
    return model


@pytest.fixture
def pair(shape):
    """The reference and our model with its weights."""
    theirs = reference_model(shape)
    ours = build_model(shape, seed=None).eval()
    ours.load_state_dict(from_hugging_face(shape, theirs.state_dict()))
    return theirs, ours


def ids_for(shape: ModelShape) -> torch.Tensor:
    return torch.randint(shape.vocab_size, (3, shape.context), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_logits(shape, pair):
    theirs, ours = pair
    ids = ids_for(shape)
    torch.testing.assert_close(ours.logits(ours(ids)), theirs(ids).logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_cached_logits(shape, pair):
    theirs, ours = pair
    ids = ids_for(shape)
    cache, parts, start = KVCache(shape, batch=3), [], 0
    for count in (11, 1, 1, 6, 1, 20):
        parts.append(ours.logits(ours(ids[:, start : start + count], cache=cache, start=start)))
        start += count
    torch.testing.assert_close(torch.cat(parts, dim=1), theirs(ids).logits, rtol=0, atol=1e-5)


def test_gradients(shape, pair):
    theirs, ours = pair
    ids = ids_for(shape)
    x, y = ids[:, :-1], ids[:, 1:]
    logits = theirs(x).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").backward()
    linear_cross_entropy(ours(x).flatten(0, 1), ours.head_weight, y.flatten(), chunk_tokens=50).backward()
    expected = from_hugging_face(shape, {name: p.grad for name, p in theirs.named_parameters()})
    for name, parameter in ours.named_parameters():
        error = (parameter.grad - expected[name]).norm() / expected[name].norm()
        assert error < 1e-5, (name, error)


@torch.no_grad()
def test_their_model_takes_our_weights(shape):
    ours = build_model(shape, seed=3).eval()
    theirs = reference_model(shape)
    missing, unexpected = theirs.load_state_dict(to_hugging_face(shape, ours.state_dict()), strict=False)
    assert not unexpected and set(missing) <= ({"lm_head.weight"} if shape.tied else set())
    ids = ids_for(shape)
    torch.testing.assert_close(theirs(ids).logits, ours.logits(ours(ids)), rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_folder_loads(shape, tmp_path):
    """config.json and our own safetensors file, read by from_pretrained."""
    import json

    from ondevice.model.safetensors import write

    ours = build_model(shape, seed=3).eval()
    write(tmp_path / "model.safetensors", to_hugging_face(shape, ours.state_dict()), {"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(hugging_face_config(shape)))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = ids_for(shape)
    torch.testing.assert_close(theirs(ids).logits, ours.logits(ours(ids)), rtol=0, atol=1e-5)


def test_the_config_says_what_the_shape_says(shape):
    config = reference_model(shape).config
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (211, 48, 3)
    assert config.tie_word_embeddings is shape.tied
    if shape.arch == "llama":
        assert config.rope_parameters["rope_theta"] == shape.rope_theta
        assert config.rope_parameters["rope_type"] == (shape.rope_scaling.kind if shape.rope_scaling else "default")
