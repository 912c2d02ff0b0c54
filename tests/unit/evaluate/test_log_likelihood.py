"""Likelihoods of continuations, against torch's own log-softmax, and the windows of long texts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ondevice.errors import CheckpointError, DataError
from ondevice.evaluate.log_likelihood import likelihoods, rolling_windows
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.build import build_model
from ondevice.run.recipe import ModelShape

SHAPE = ModelShape(
    arch="llama", vocab_size=50, context=12, layers=2, width=32, heads=2, kv_heads=2, hidden=64, tied=True
)


@pytest.fixture(scope="module")
def backend():
    return TorchBackend(build_model(SHAPE, seed=3))


def reference(backend, context, continuation):
    ids = torch.tensor([[*context, *continuation]])[:, -13:]
    logits = torch.from_numpy(backend.logits(ids[:, :-1].numpy())[0]).double().log_softmax(-1)[-len(continuation) :]
    wanted = torch.tensor(continuation)
    nats = logits[torch.arange(len(wanted)), wanted].sum().item()
    return nats, bool((logits.argmax(-1) == wanted).all())


def test_they_are_those_of_each_alone(backend):
    rng = np.random.default_rng(5)
    pairs = [
        (rng.integers(0, 50, size=size).tolist(), rng.integers(0, 50, size=count).tolist())
        for size, count in [(1, 1), (3, 4), (11, 1), (9, 9), (30, 12), (1, 12), (2, 5)]
    ]
    for found, (context, continuation) in zip(likelihoods(backend, pairs), pairs, strict=True):
        nats, greedy = reference(backend, context, continuation)
        assert found.nats == pytest.approx(nats, abs=1e-4) and found.greedy == greedy


def test_what_greedy_decoding_writes_is_greedy(backend):
    ids = [7]
    for _ in range(4):
        ids.append(int(backend.logits(np.array([ids]))[0, -1].argmax()))
    other = [*ids[1:4], (ids[4] + 1) % 50]
    assert [each.greedy for each in likelihoods(backend, [([7], ids[1:]), ([7], other), ([7], [])])] == [
        True,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("context", "continuation", "says"),
    [
        ([1], [2] * 13, "13 tokens"),
        ([], [2], "nothing stands before"),
        ([1], [50], "ids that the model"),
        ([-1], [2], "ids"),
    ],
)
def test_what_cannot_be_scored_is_named(backend, context, continuation, says):
    with pytest.raises(DataError, match=f"request 2: .*{says}"):
        likelihoods(backend, [([1], [2]), (context, continuation)])


def test_broken_weights_are_no_score():
    model = build_model(SHAPE, seed=3)
    with torch.no_grad():
        model.norm.weight.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="not finite"):
        likelihoods(TorchBackend(model), [([1], [2])])


@given(st.integers(0, 60), st.integers(1, 9))
def test_windows_predict_every_token_once_and_fill_the_context(length, context):
    ids = list(range(100, 100 + length))
    windows = list(rolling_windows(ids, prefix=7, context=context))
    assert [token for _, continuation in windows for token in continuation] == ids
    whole, at = [7, *ids], 0
    for before, continuation in windows:
        start = whole.index(before[0])
        assert whole[start : start + len(before) + len(continuation)] == before + continuation
        assert len(before) >= 1 and len(before) + len(continuation) - 1 <= context
        at += len(continuation)
        assert len(before) + len(continuation) - 1 == min(context, at)
