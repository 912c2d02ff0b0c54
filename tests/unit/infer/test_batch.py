"""Batches against one by one: the same tokens for prompts of unlike lengths, stops, slides and samplers."""

import numpy as np
import pytest
import torch

from ondevice.errors import CheckpointError, UsageError
from ondevice.infer.batch import generate_batch
from ondevice.infer.generate import generate
from ondevice.infer.sampling import Sampling
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.attention import ragged_mask
from ondevice.model.build import build_model
from ondevice.run.recipe import ModelShape

GREEDY = Sampling(temperature=0.0)
SAMPLED = Sampling(temperature=1.2, top_k=20, top_p=0.9, repetition_penalty=1.1, seed=3)


def make(arch, kv_heads):
    shape = ModelShape(arch=arch, vocab_size=61, context=24, layers=2, width=32, heads=4, kv_heads=kv_heads, hidden=64)
    model = build_model(shape, seed=1)
    with torch.no_grad():  # far from uniform, so that rounding decides nothing
        for parameter in model.parameters():
            parameter.mul_(3.0) if parameter.ndim > 1 else None
    return model


@pytest.fixture(scope="module", params=[("gpt2", 4), ("llama", 4), ("llama", 2)], ids=str)
def model(request):
    return make(*request.param)


def prompts(count, seed=0, longest=30):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 61, rng.integers(1, longest)).tolist() for _ in range(count)]


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("new", [5, 30])
def test_the_same_tokens_as_one_by_one(model, settings, new):
    """Among them prompts beyond the context, stops, and windows that slide several times."""
    asked = prompts(11)
    stops = {"settings": settings, "stop_ids": [7, 9, 30], "max_new_tokens": new, "vocab_size": 60}
    asked = [[min(token, 59) for token in ids] for ids in asked]
    together = generate_batch(TorchBackend(model), asked, **stops, batch=4)
    for ids, written in zip(asked, together, strict=True):
        alone = generate(TorchBackend(model), ids, **stops)
        assert (tuple(alone), alone.finish, alone.note) == (written.ids, written.finish, written.note)
    assert new == 5 or {written.finish for written in together} >= {"stop"}


def test_padding_changes_no_logits(model):
    rows = [[5, 9, 2], [1, 2, 3, 4, 5, 6, 7], [8]]
    backend = TorchBackend(model)
    together = [backend.read(rows, room=4), backend.step(np.array([[3], [4], [5]]))]
    backend.keep([2, 0])
    together.append(backend.step(np.array([[6], [7]]))[[1, 0]])
    for row, then in ((0, [3, 7]), (2, [5, 6])):
        ids = [*rows[row], *then]
        expected = backend.logits(np.array([ids]))[0, len(rows[row]) - 1 :]
        place = [row, row, 0 if row == 0 else 1]
        found = np.stack([logits[at] for logits, at in zip(together, place, strict=True)])
        np.testing.assert_allclose(found, expected, atol=2e-5)


def test_rows_of_one_length_need_no_mask(model):
    backend = TorchBackend(model)
    backend.read([[1, 2], [3, 4]], room=1)
    assert backend._lead_B is None


def test_ragged_mask_by_hand():
    mask = ragged_mask(1, 2, torch.tensor([0, 2]))
    assert mask[0, 0].tolist() == [[True, True, False], [True, True, True]]
    assert mask[1, 0].tolist() == [[False, True, False], [False, False, True]]


def test_odd_requests(model):
    backend = TorchBackend(model)
    assert generate_batch(backend, [], settings=GREEDY, max_new_tokens=3) == []
    (none,) = generate_batch(backend, [[1]], settings=GREEDY, max_new_tokens=0)
    assert (none.ids, none.finish) == ((), "length")
    with pytest.raises(UsageError, match="empty"):
        generate_batch(backend, [[1], []], settings=GREEDY, max_new_tokens=1)
    assert generate_batch(backend, [[]], settings=GREEDY, max_new_tokens=1, eot_id=0)[0].finish
    with pytest.raises(UsageError):
        generate_batch(backend, [[1]], settings=GREEDY, max_new_tokens=1, batch=0)


def test_a_broken_model_says_so():
    model = make("gpt2", 4)
    with torch.no_grad():
        model.norm.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="finite"):
        generate_batch(TorchBackend(model), [[1], [2, 3]], settings=GREEDY, max_new_tokens=2)


def test_through_onnxruntime(model, tmp_path):
    pytest.importorskip("onnxruntime")
    from ondevice.export.onnx import export_onnx
    from ondevice.infer.onnx_backend import OnnxBackend

    export_onnx(model.shape, dict(model.named_parameters()), tmp_path / "x", metadata={})
    backend = OnnxBackend(tmp_path / "x", threads=1)
    asked = prompts(6, seed=2)
    together = generate_batch(backend, asked, settings=GREEDY, stop_ids=[7, 9], max_new_tokens=30, batch=4)
    for ids, written in zip(asked, together, strict=True):
        assert tuple(generate(backend, ids, settings=GREEDY, stop_ids=[7, 9], max_new_tokens=30)) == written.ids
