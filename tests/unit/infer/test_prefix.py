"""What a cache holds is not read again, and what it does not hold is."""

from __future__ import annotations

import numpy as np
import pytest

from ondevice.infer.generate import generate
from ondevice.infer.prefix import PrefixBackend
from ondevice.infer.sampling import Sampling
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.build import build_model
from ondevice.run.recipe import ModelShape
from tests.unit.infer.serving import Alphabet

GREEDY = Sampling(temperature=0.0)


def test_only_what_goes_on_is_read_from_where_it_was() -> None:
    inner = Alphabet(16)
    backend = PrefixBackend(inner)
    for ids, read in (
        ([97, 98], [97, 98]),
        ([97, 98, 99], [99]),
        ([97, 98, 99], [97, 98, 99]),  # the logits after it are gone, so it is read anew
        ([97, 98], [97, 98]),
        ([98, 98, 99], [98, 98, 99]),
    ):
        backend.start(1)
        backend.step(np.array([ids]))
        assert inner.read[-1] == read
    backend.step(np.array([[100]]))
    assert inner.read[-1] == [100] and inner.held == 4
    with pytest.raises(ValueError, match="exceed the context"):
        backend.step(np.zeros((1, 13), np.int64))
    with pytest.raises(ValueError, match="one sequence"):
        backend.start(2)


def test_a_step_that_failed_leaves_nothing_to_go_on_from() -> None:
    inner = Alphabet(16)
    backend = PrefixBackend(inner)
    backend.start(1)
    backend.step(np.array([[97, 98]]))
    with pytest.raises(IndexError):
        backend.step(np.zeros((1, 0), np.int64))
    backend.start(1)
    backend.step(np.array([[97, 98, 99]]))
    assert inner.read[-1] == [97, 98, 99]


def test_a_model_gives_the_tokens_of_a_fresh_reading() -> None:
    shape = ModelShape(arch="llama", vocab_size=300, context=64, layers=2, width=32, heads=4, kv_heads=2, hidden=64)
    model = build_model(shape, seed=5).eval()
    kept = PrefixBackend(TorchBackend(model))
    prompt = [5, 9, 7]
    for _ in range(4):
        wanted = list(generate(TorchBackend(model), prompt, settings=GREEDY, max_new_tokens=9))
        assert list(generate(kept, prompt, settings=GREEDY, max_new_tokens=9)) == wanted
        prompt = [*prompt, *wanted, 11, 4]
    assert kept.reused == 3 + 3 * 11 - 3
