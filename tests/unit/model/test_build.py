"""First weights: their sizes under both initialisations, and that a block of zeros changes nothing."""

from __future__ import annotations

import math

import pytest
import torch

from ondevice.model.build import build_model
from ondevice.run.recipe import ModelShape

SHAPE = ModelShape(arch="llama", vocab_size=64, context=16, layers=2, width=64, heads=2, kv_heads=2, hidden=256)


@pytest.mark.parametrize(
    ("init", "up", "residual"), [("gpt2", 0.02, 0.02 / math.sqrt(4)), ("fan-in", 1 / math.sqrt(64), 0.0)]
)
def test_matrices_have_the_size_that_their_place_asks_for(init, up, residual):
    sizes = {name: p.std().item() for name, p in build_model(SHAPE, seed=1, init=init).named_parameters() if p.ndim > 1}
    assert sizes["embed.weight"] == pytest.approx(0.02, rel=0.1)
    assert sizes["blocks.1.mlp.gate_up.weight"] == pytest.approx(up, rel=0.1)
    assert sizes["blocks.0.attn.qkv.weight"] == pytest.approx(up, rel=0.1)
    assert sizes["blocks.0.mlp.down.weight"] == pytest.approx(residual, rel=0.1)


def test_fan_in_begins_as_if_there_were_no_blocks():
    model, ids = build_model(SHAPE, seed=1, init="fan-in"), torch.arange(16)[None]
    assert torch.equal(model(ids), model.norm(model.embed(ids)))
    again = build_model(SHAPE, seed=1, init="fan-in")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
