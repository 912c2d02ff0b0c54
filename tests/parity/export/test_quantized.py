"""Quantized graphs under the real onnxruntime, against the torch decoders with the weights they really have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ondevice.export.plan import CANDIDATES, FP32, PLANS, Plan
from ondevice.export.quantize import Int4, Int8
from ondevice.export.trial import build_graph
from ondevice.infer.onnx_session import OnnxSession
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.build import build_model
from ondevice.model.decoder import Decoder
from ondevice.run.recipe import ModelShape, RopeScaling
from tests.parity.export.models import perturbed

_BASE = ModelShape(
    arch="llama", vocab_size=211, context=96, layers=3, width=64, heads=8, kv_heads=2, hidden=150, tied=True
)
SHAPES = {
    "gpt2-tied": replace(_BASE, arch="gpt2", kv_heads=8),
    "gpt2-odd-width": replace(_BASE, arch="gpt2", width=40, kv_heads=8, tied=False),
    "llama-tied": _BASE,
    "llama-untied": replace(_BASE, tied=False, kv_heads=1),
    "qwen2-biases": replace(_BASE, qkv_bias=True),
    "rope-scaled": replace(
        _BASE,
        rope_scaling=RopeScaling(kind="llama3", factor=8.0, low_frequency=1.0, high_frequency=4.0, original_context=16),
    ),
}
_MATRICES = ("qkv.weight", "out.weight", "up.weight", "down.weight")


def kind_of(name: str, shape: ModelShape, plan: Plan) -> str:
    if name == "embed.weight":
        return plan.embedding
    if name == "head.weight":
        return plan.head
    if name.startswith("blocks.") and name.endswith(_MATRICES):
        return plan.block(int(name.split(".")[1]), shape)
    return "fp32"


def rounded(model: Decoder, plan: Plan) -> Decoder:
    """The model with the weights that the plan leaves it."""
    shape = model.shape
    twin = build_model(shape, seed=None).eval()
    state = {}
    for name, tensor in model.named_parameters():
        kind = kind_of(name, shape, plan)
        makers = {"int4": Int4, "int8": Int8}
        state[name] = torch.from_numpy(makers[kind](tensor).restored()) if kind in makers else tensor.detach()
    twin.load_state_dict(state, strict=False)
    return twin


def relative(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(((got - wanted) ** 2).mean()) / wanted.std())


@pytest.mark.parametrize("plan", [plan for plan in CANDIDATES if plan is not FP32], ids=lambda plan: plan.name)
@pytest.mark.parametrize("name", SHAPES)
def test_the_graph_computes_with_the_quantized_weights(name: str, plan: Plan, tmp_path: Path) -> None:
    """What is left between the two is the rounding of activations; a wrong layout would make them unrelated."""
    pytest.importorskip("onnxruntime")
    model = perturbed(SHAPES[name])
    build_graph(model.shape, dict(model.named_parameters()), plan).save(tmp_path, external=False)
    tokens = np.random.default_rng(5).integers(0, model.shape.vocab_size, (2, 40))
    session = OnnxSession(tmp_path / "model.onnx", model.shape, threads=1)
    session.start(2)
    got = np.concatenate([session.run(piece) for piece in np.split(tokens, [30, 31], axis=1)], axis=1)
    wanted = TorchBackend(rounded(model, plan)).logits(tokens)
    by_block = "int8" not in plan.name  # int8 rounds a whole activation with one scale
    assert relative(got, wanted) < (0.03 if by_block else 0.12)
    assert (got.argmax(-1) == wanted.argmax(-1)).mean() > (0.9 if by_block else 0.75)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_external_data_hold_the_same(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = perturbed(replace(_BASE, vocab_size=3000))
    tokens = np.random.default_rng(5).integers(0, 3000, (1, 9))
    logits = []
    for external in (False, True):
        folder = tmp_path / str(external)
        folder.mkdir()
        files = build_graph(model.shape, dict(model.named_parameters()), PLANS[kind]).save(folder, external=external)
        assert len(files) == 1 + external
        logits.append(OnnxSession(folder / "model.onnx", model.shape, threads=1).run(tokens))
    assert np.array_equal(*logits)


@pytest.mark.parametrize("plan", [PLANS["int8"], PLANS["int4"], CANDIDATES[1]], ids=lambda plan: plan.name)
def test_the_checker_agrees(plan: Plan, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = perturbed(_BASE)
    build_graph(model.shape, dict(model.named_parameters()), plan).save(tmp_path, external=False)
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    wanted = {"": 17} | ({"com.microsoft": 1} if "int4" in plan.name else {})
    assert {each.domain: each.version for each in proto.opset_import} == wanted


def test_a_tied_table_is_stored_once(tmp_path: Path) -> None:
    model = perturbed(replace(_BASE, vocab_size=5000))
    whole = build_graph(model.shape, dict(model.named_parameters())).data_bytes
    for kind, most in (("int8", 0.27), ("int4", 0.18)):
        assert build_graph(model.shape, dict(model.named_parameters()), PLANS[kind]).data_bytes < most * whole
