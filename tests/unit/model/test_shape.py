from __future__ import annotations

from dataclasses import replace

import pytest

from ondevice.errors import UsageError
from ondevice.model.shape import check_shape
from ondevice.run.recipe import ModelShape

LLAMA = ModelShape(arch="llama", vocab_size=97, context=24, layers=2, width=32, heads=4, kv_heads=2, hidden=48)


def test_good_shapes_pass(shape):
    check_shape(shape)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arch": "lama"}, ["model.arch", "did you mean 'llama'"]),
        ({"heads": 5}, ["model.heads = 5", "model.width = 32"]),
        ({"kv_heads": 3}, ["model.kv_heads = 3", "model.heads = 4"]),
        ({"arch": "gpt2"}, ["model.kv_heads = 2", "gpt2"]),
        ({"width": 36, "heads": 4}, ["model.heads", "even"]),
        ({"layers": 0}, ["model.layers", "at least 1"]),
        ({"hidden": -4}, ["model.hidden", "-4"]),
        ({"context": 12.5}, ["model.context", "12.5"]),
        ({"vocab_size": True}, ["model.vocab_size"]),
        ({"dropout": 1.0}, ["model.dropout"]),
        ({"dropout": float("nan")}, ["model.dropout"]),
        ({"rope_theta": 0.0}, ["model.rope_theta"]),
        ({"norm_eps": float("inf")}, ["model.norm_eps"]),
    ],
)
def test_bad_shapes_are_refused_naming_the_key(change, words):
    with pytest.raises(UsageError) as refusal:
        check_shape(replace(LLAMA, **change))
    message = str(refusal.value)
    assert all(word in message for word in words), message
    assert message.endswith(".") and "\n" not in message


def test_gpt2_heads_may_be_odd_in_width():
    check_shape(replace(LLAMA, arch="gpt2", width=36, kv_heads=4))
