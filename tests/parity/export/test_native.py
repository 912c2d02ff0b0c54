"""Graphs of opset 23, and those with the cache in place, under onnxruntime: the model's logits in every way of use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ondevice.export.onnx import ExportInfo, export_onnx
from ondevice.export.trial import build_graph
from ondevice.export.verify import verify_onnx
from ondevice.infer.batch import generate_batch
from ondevice.infer.export_folder import IN_PLACE, NATIVE, PORTABLE, release
from ondevice.infer.generate import generate
from ondevice.infer.onnx_backend import OnnxBackend
from ondevice.infer.onnx_session import OLDEST, OnnxSession
from ondevice.infer.sampling import Sampling
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.decoder import Decoder
from ondevice.run.recipe import ModelShape, RopeScaling
from tests.parity.export.models import perturbed

onnxruntime = pytest.importorskip("onnxruntime")
if release(onnxruntime.__version__) < release(OLDEST[NATIVE]):
    pytest.skip("this onnxruntime is older than opset 23", allow_module_level=True)

_BASE = ModelShape(
    arch="llama", vocab_size=211, context=96, layers=3, width=128, heads=8, kv_heads=2, hidden=150, tied=True
)
SHAPES = {
    "gpt2": replace(_BASE, arch="gpt2", kv_heads=8),
    "llama-grouped": _BASE,
    "llama-one-key-head": replace(_BASE, kv_heads=1, tied=False),
    "llama-plain": replace(_BASE, kv_heads=8),
    "qwen2": replace(_BASE, qkv_bias=True),
    "rope-scaled": replace(_BASE, rope_scaling=RopeScaling(kind="linear", factor=2.0)),
}


def exported(model: Decoder, folder: Path) -> ExportInfo:
    reference = TorchBackend(model).logits
    state = dict(model.named_parameters())
    return export_onnx(model.shape, state, folder, metadata={}, reference=reference, form=IN_PLACE)


@pytest.mark.parametrize("name", SHAPES)
def test_every_way_of_use_gives_the_models_logits(name: str, tmp_path: Path) -> None:
    model = perturbed(SHAPES[name])
    graph = build_graph(model.shape, dict(model.named_parameters()), form=NATIVE)
    graph.save(tmp_path, external=False)
    onnx = pytest.importorskip("onnx")
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert {each.op_type for each in proto.graph.node} >= {"Attention"}
    session = OnnxSession(tmp_path / "model.onnx", model.shape, threads=1)
    parity = verify_onnx(session, TorchBackend(model).logits, shape=model.shape)
    assert parity.max_abs_error < 2e-5 and "left padding" in parity.cases
    session.start(1)
    tokens = np.random.default_rng(5).integers(0, 211, (1, 96))
    got, wanted = session.run(tokens), TorchBackend(model).logits(tokens)
    assert np.abs(got - wanted).max() < 1e-4


@pytest.mark.parametrize("name", SHAPES)
def test_a_cache_in_place_gives_the_models_logits(name: str, tmp_path: Path) -> None:
    model = perturbed(SHAPES[name])
    export = exported(model, tmp_path / "x")
    assert (export.trial.form, export.trial.not_native) == (IN_PLACE, "")
    assert export.parity is not None and export.parity.max_abs_error < 2e-5 and "left padding" in export.parity.cases
    raw = json.loads((tmp_path / "x" / "export.json").read_text())
    assert (raw["v"], raw["form"], raw["opset"], raw["onnxruntime"]) == (2, "in place", 17, "1.22")
    backend, torch_backend = OnnxBackend(tmp_path / "x", threads=1), TorchBackend(model)
    greedy = Sampling(temperature=0.0)
    texts = [list(generate(each, [7, 1, 40], settings=greedy, max_new_tokens=140)) for each in (torch_backend, backend)]
    assert texts[0] == texts[1] and len(set(texts[0])) > 3  # past the context too
    prompts = [[5, 9], [1, 2, 3, 4, 5, 6, 7], [100], [8] * 20]
    many = [generate_batch(each, prompts, settings=greedy, max_new_tokens=20) for each in (torch_backend, backend)]
    assert many[0] == many[1]


def test_one_buffer_holds_the_cache_from_the_first_step_to_the_last(tmp_path: Path) -> None:
    model = perturbed(SHAPES["llama-grouped"])
    exported(model, tmp_path / "x")
    session = OnnxSession(tmp_path / "x" / "model.onnx", model.shape, threads=1, in_place=True)
    session.start(1)
    places = [each.data_ptr() for each in session._past]
    tokens = np.random.default_rng(5).integers(0, 211, (1, 96))
    for piece in np.split(tokens, [10, 11, 12, 60], axis=1):
        session.run(piece)
    assert [each.data_ptr() for each in session._past] == places
    with session.set_aside():  # looking at other tokens leaves the cache alone
        session.start(1)
        session.run(tokens[:, ::-1])
    assert [each.data_ptr() for each in session._past] == places and session.length == 96


def test_the_check_of_an_export_holds_no_cache_of_the_whole_context(tmp_path: Path, monkeypatch) -> None:
    """Of three rows it would be half the size of a GPT-2 of 124 M, beside its weights."""
    model = perturbed(replace(SHAPES["gpt2"], context=4096))
    start, rows = OnnxSession.start, []

    def spy(session: OnnxSession, batch: int, *, capacity: int | None = None) -> None:
        start(session, batch, capacity=capacity)
        rows.append(batch * session._dims()[2])

    monkeypatch.setattr(OnnxSession, "start", spy)
    exported(model, tmp_path / "x")
    assert rows[0] == 4096 and len(rows) > 5 and max(rows[1:]) <= 3 * 32


def test_heads_that_cannot_be_rotated_in_place_get_the_portable_form(tmp_path: Path) -> None:
    model = perturbed(replace(_BASE, width=64))
    export = exported(model, tmp_path / "x")
    assert export.trial.form == PORTABLE and "multiples of 16" in export.trial.not_native
    assert export.parity is not None and OnnxBackend(tmp_path / "x").export.form == PORTABLE
