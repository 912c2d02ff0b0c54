"""The same tokens and the same text from torch and onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.export.onnx import export_onnx
from ondevice.infer.backend import Backend
from ondevice.infer.generate import generate
from ondevice.infer.onnx_backend import OnnxBackend
from ondevice.infer.sampling import Sampling
from ondevice.infer.text import stream_text
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.build import build_model
from ondevice.model.decoder import Decoder
from ondevice.run.recipe import ModelShape

GREEDY = Sampling(temperature=0.0)


@pytest.fixture(params=[("gpt2", 4), ("llama", 2)], ids=["gpt2", "llama"], scope="module")
def model(request: pytest.FixtureRequest) -> Decoder:
    arch, kv_heads = request.param
    shape = ModelShape(
        arch=arch, vocab_size=260, context=48, layers=2, width=64, heads=4, kv_heads=kv_heads, hidden=160, dropout=0.2
    )
    decoder = build_model(shape, seed=3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15)
    return decoder


@pytest.fixture(scope="module")
def backends(model: Decoder, tmp_path_factory: pytest.TempPathFactory) -> list[Backend]:
    """torch, onnxruntime from one file, and onnxruntime from mapped data with little memory."""
    pytest.importorskip("onnxruntime")
    place, torch_backend = tmp_path_factory.mktemp("exports"), TorchBackend(model)
    for external in (False, True):
        export_onnx(
            model.shape,
            model.state_dict(),
            place / str(external),
            metadata={},
            tokenizer=ByteTokenizer().save,
            reference=torch_backend.logits,
            external=external,
        )
    return [
        torch_backend,
        OnnxBackend(place / "False", threads=1, verify=True),
        OnnxBackend(place / "True", threads=1, low_memory=True),
    ]


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_tokens_are_the_same(backends: list[Backend], penalty: float) -> None:
    """120 tokens with a context of 48, so the window slides too."""
    settings = Sampling(temperature=0.0, repetition_penalty=penalty)
    outputs = [list(generate(each, [7, 1, 40], settings=settings, max_new_tokens=120)) for each in backends]
    assert outputs[0] == outputs[1] == outputs[2]
    assert len(outputs[0]) == 120 and len(set(outputs[0])) > 3


def test_the_likeliest_token_leads_by_more_than_the_error(backends: list[Backend]) -> None:
    """Else equal greedy tokens would be luck."""
    tokens = [7, 1, 40, *generate(backends[0], [7, 1, 40], settings=GREEDY, max_new_tokens=45)]
    logits = backends[0].logits(np.array([tokens]))[0]
    best = np.sort(logits, axis=-1)
    error = np.abs(backends[1].logits(np.array([tokens]))[0] - logits).max()
    assert (best[:, -1] - best[:, -2]).min() > 10 * error


def test_sampled_text_is_the_same_for_a_seed(backends: list[Backend]) -> None:
    def text(backend: Backend, seed: int) -> str:
        settings = Sampling(seed=seed)
        return "".join(stream_text(backend, ByteTokenizer(), "Hello", settings=settings, max_new_tokens=80))

    assert text(backends[0], 1) == text(backends[0], 1) == text(backends[1], 1) == text(backends[2], 1)
    assert text(backends[0], 1) != text(backends[0], 2)


def test_steps_continue_whole_sequences(backends: list[Backend]) -> None:
    ids = np.random.default_rng(0).integers(0, 260, (2, 48))
    whole = backends[0].logits(ids)
    for backend in backends:
        backend.start(2)
        for start, end in ((0, 20), (20, 21), (21, 47), (47, 48)):
            assert np.abs(backend.step(ids[:, start:end]) - whole[:, end - 1]).max() < 1e-4
            if end == 21:  # looking at whole sequences leaves the cache alone
                assert np.abs(backend.logits(ids[:1, :30]) - whole[:1, :30]).max() < 1e-4
        with pytest.raises(ValueError, match="exceed the context of 48"):
            backend.step(ids[:, :1])
        assert (backend.context, backend.vocab_size) == (48, 260)


def test_a_decoder_in_training_stays_so_and_drops_nothing(model: Decoder) -> None:
    backend, ids = TorchBackend(model), np.arange(20)[None]
    model.train()
    assert (backend.logits(ids) == backend.logits(ids)).all()
    assert model.training and all(each.training for each in model.modules())
    assert model.head_weight.requires_grad
