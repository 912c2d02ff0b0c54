"""Our ONNX files under the real checker, shape inference and onnxruntime, against the torch decoders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ondevice.export.onnx import export_onnx
from ondevice.export.trial import build_graph
from ondevice.infer.onnx_session import OnnxSession
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.decoder import Decoder
from ondevice.run.recipe import ModelShape
from tests.parity.export.models import perturbed

SHAPES = {
    f"{arch}-{kv}-{'tied' if tied else 'untied'}": ModelShape(
        arch=arch, vocab_size=211, context=160, layers=3, width=64, heads=8, kv_heads=kv, hidden=150, tied=tied
    )
    for arch, kv, tied in (
        ("gpt2", 8, True), ("gpt2", 8, False),
        ("llama", 8, True), ("llama", 2, True), ("llama", 1, False),
    )
}  # fmt: skip


@pytest.fixture(params=SHAPES)
def model(request: pytest.FixtureRequest) -> Decoder:
    return perturbed(SHAPES[request.param])


def ids(shape: ModelShape, batch: int, length: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, shape.vocab_size, (batch, length))


def test_the_checker_and_shape_inference_agree(model: Decoder, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    shape = model.shape
    build_graph(shape, model.state_dict()).save(tmp_path, external=False)
    proto = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert (proto.ir_version, proto.opset_import[0].version, len(proto.opset_import)) == (8, 17, 1)
    inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    got = {
        each.name: [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim]
        for each in (*inferred.graph.input, *inferred.graph.output)
    }
    past, total = (["batch", shape.kv_heads, length, 8] for length in ("past", "past + sequence"))
    parts = [f"{i}.{part}" for i in range(3) for part in ("key", "value")]
    assert got == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "past + sequence"],
        "position_ids": ["batch", "sequence"],
        "logits": ["batch", "sequence", 211],
        **{f"past_key_values.{part}": past for part in parts},
        **{f"present.{part}": total for part in parts},
    }


def test_no_tensor_is_stored_twice(model: Decoder, tmp_path: Path) -> None:
    graph = build_graph(model.shape, model.state_dict())
    (file,) = graph.save(tmp_path, external=False)
    tables = 2 * 4 * 160 * 8 if model.shape.arch == "llama" else 0
    weights = 4 * sum(each.numel() for each in model.parameters())
    assert 0 < graph.data_bytes - weights - tables < 1000
    assert file.bytes < graph.data_bytes + 40_000


@pytest.mark.parametrize("external", [False, True])
def test_the_export_is_verified(model: Decoder, tmp_path: Path, external: bool) -> None:
    pytest.importorskip("onnxruntime")
    reference = TorchBackend(model).logits
    info = export_onnx(
        model.shape, model.state_dict(), tmp_path / "x", metadata={}, reference=reference, external=external
    )
    assert info.parity is not None and info.parity.max_abs_error < 2e-5 and info.parity.same_argmax == 1.0
    saved = json.loads((tmp_path / "x" / "parity.json").read_text())
    assert saved["checked"] and set(saved["cases"]) == {
        "empty past, batch 1", "empty past, batch 3", "prefill in pieces", "decoding", "left padding",
    }  # fmt: skip
    assert (tmp_path / "x" / "model.onnx.data").exists() == external


def test_logits_at_the_end_of_the_context(model: Decoder, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    build_graph(model.shape, model.state_dict()).save(tmp_path, external=False)
    tokens = ids(model.shape, 2, model.shape.context)
    session = OnnxSession(tmp_path / "model.onnx", model.shape, threads=1)
    session.start(2)
    got, wanted = session.run(tokens), TorchBackend(model).logits(tokens)
    assert np.abs(wanted).max() > 1  # an error of 1e-4 would mean something
    assert np.abs(got - wanted).max() < 1e-4


def test_every_cut_of_a_prompt_gives_the_same_logits(model: Decoder, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    build_graph(model.shape, model.state_dict()).save(tmp_path, external=False)
    session = OnnxSession(tmp_path / "model.onnx", model.shape, threads=1, low_memory=True)
    tokens = ids(model.shape, 3, 24)
    wanted = TorchBackend(model).logits(tokens)
    for cuts in ((1,), (23,), (5, 6, 20), tuple(range(1, 24))):
        session.start(3)
        got = np.concatenate([session.run(piece) for piece in np.split(tokens, cuts, axis=1)], axis=1)
        assert np.abs(got - wanted).max() < 1e-4
        assert session.length == 24


def test_left_padding_gives_the_logits_of_each_row_alone(model: Decoder, tmp_path: Path) -> None:
    """Prefill and then decode with rows of unequal length; what stands in the padding must not matter."""
    pytest.importorskip("onnxruntime")
    build_graph(model.shape, model.state_dict()).save(tmp_path, external=False)
    session = OnnxSession(tmp_path / "model.onnx", model.shape, threads=1)
    tokens, pads = ids(model.shape, 3, 20), (0, 4, 13)
    mask = np.arange(20) >= np.array(pads)[:, None]
    session.start(3)
    pieces = [session.run(tokens[:, a:b], mask_BT=mask[:, a:b]) for a, b in ((0, 15), (15, 16), (16, 20))]
    got = np.concatenate(pieces, axis=1)
    assert np.isfinite(got).all()
    for row, pad in enumerate(pads):
        wanted = TorchBackend(model).logits(tokens[row : row + 1, pad:])[0]
        assert np.abs(got[row, pad:] - wanted).max() < 1e-4


def test_half_precision_weights_are_written_as_float32(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = perturbed(SHAPES["llama-2-tied"]).bfloat16()
    build_graph(model.shape, model.state_dict()).save(tmp_path, external=True)
    tokens = ids(model.shape, 1, 20)
    got = OnnxSession(tmp_path / "model.onnx", model.shape, threads=1).run(tokens)
    assert np.abs(got - TorchBackend(model.float()).logits(tokens)).max() < 1e-4
