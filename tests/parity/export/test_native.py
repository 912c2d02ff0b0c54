"""Graphs of opset 23 under the real checker and onnxruntime: the logits of the portable form in every way of use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ondevice.export.onnx_format import NATIVE_OPSET
from ondevice.export.trial import build_graph
from ondevice.export.verify import verify_onnx
from ondevice.infer.export_folder import release
from ondevice.infer.onnx_session import OLDEST_NATIVE, OnnxSession
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.build import build_model
from ondevice.run.recipe import ModelShape, RopeScaling

onnxruntime = pytest.importorskip("onnxruntime")
if release(onnxruntime.__version__) < release(OLDEST_NATIVE):
    pytest.skip("this onnxruntime is older than opset 23", allow_module_level=True)

_BASE = ModelShape(
    arch="llama", vocab_size=211, context=96, layers=3, width=64, heads=8, kv_heads=2, hidden=150, tied=True
)
SHAPES = {
    "gpt2": replace(_BASE, arch="gpt2", kv_heads=8),
    "llama-grouped": _BASE,
    "llama-one-key-head": replace(_BASE, kv_heads=1, tied=False),
    "llama-plain": replace(_BASE, kv_heads=8),
    "qwen2": replace(_BASE, qkv_bias=True),
    "rope-scaled": replace(_BASE, rope_scaling=RopeScaling(kind="linear", factor=2.0)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_every_way_of_use_gives_the_models_logits(name: str, tmp_path: Path) -> None:
    model = build_model(SHAPES[name], seed=11).eval()
    generator = torch.Generator().manual_seed(12)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    graph = build_graph(model.shape, dict(model.named_parameters()), opset=NATIVE_OPSET)
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
