"""Small shapes of both decoders."""

from __future__ import annotations

import pytest

from ondevice.run.recipe import ModelShape

_SMALL = {"vocab_size": 97, "context": 24, "layers": 2, "width": 32, "heads": 4}

SHAPES = {
    "gpt2": ModelShape(arch="gpt2", kv_heads=4, hidden=64, **_SMALL),
    "gpt2-untied": ModelShape(arch="gpt2", kv_heads=4, hidden=128, tied=False, **_SMALL),
    "llama": ModelShape(arch="llama", kv_heads=4, hidden=48, **_SMALL),
    "llama-grouped-untied": ModelShape(arch="llama", kv_heads=2, hidden=48, tied=False, **_SMALL),
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES.keys())
def shape(request: pytest.FixtureRequest) -> ModelShape:
    """Each small shape in turn."""
    return request.param
