"""The builder: names, shared constants, weights written as they are, external data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ondevice.errors import CheckpointError
from ondevice.export.graph import Graph, as_float32
from ondevice.export.graph_parts import Weights
from ondevice.run.files import sha256_of


def linear(weight: np.ndarray) -> Graph:
    g = Graph("linear")
    x = g.input("x", "float32", ["n", weight.shape[1]])
    y = g.node("Gemm", x, g.weight("w", weight), transB=1, name="y")
    g.output(y, "float32", ["n", weight.shape[0]])
    return g


def test_equal_constants_are_one_and_names_never_clash() -> None:
    g = Graph("g")
    assert g.ints(1, 2) == g.ints(1, 2)
    assert len({g.ints(1), g.ints(1, 1), g.constant(1, "int64"), g.scalar(1.0), g.constant([1.0], "float32")}) == 5
    assert len({g.node("Add", "x", "x") for _ in range(5)}) == 5
    assert g.nodes == 5


@pytest.mark.parametrize("external", [False, True])
def test_the_written_file_computes_and_is_recorded(tmp_path: Path, external: bool) -> None:
    ort = pytest.importorskip("onnxruntime")
    weight = np.random.default_rng(0).standard_normal((160, 70), dtype=np.float32)
    files = linear(weight).save(tmp_path, external=external)
    assert [each.name for each in files] == ["model.onnx", "model.onnx.data"][: 1 + external]
    for each in files:
        path = tmp_path / each.name
        assert (path.stat().st_size, sha256_of(path)) == (each.bytes, each.sha256)
    x = np.random.default_rng(1).standard_normal((3, 70), dtype=np.float32)
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ weight.T, atol=1e-4)


def test_external_data_are_aligned_and_small_tensors_stay_inside(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    g = linear(np.zeros((160, 70), dtype=np.float32))
    g.weight("second", np.ones((128, 64), dtype=np.float32))
    g.weight("small", np.ones(5, dtype=np.float32))
    g.save(tmp_path, external=True)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    places = {each.name: {x.key: x.value for x in each.external_data} for each in model.graph.initializer}
    assert places["w"] == {"location": "model.onnx.data", "offset": "0", "length": "44800"}
    assert int(places["second"]["offset"]) % 65536 == 0
    assert not places["small"]
    full = onnx.load(tmp_path / "model.onnx")
    values = {each.name: onnx.numpy_helper.to_array(each) for each in full.graph.initializer}
    assert (values["second"] == 1).all() and values["second"].shape == (128, 64)


def test_weights_of_any_float_type_become_float32() -> None:
    torch = pytest.importorskip("torch")
    values = [1.5, -2.0, 0.25]
    for tensor in (torch.tensor(values, dtype=torch.bfloat16, requires_grad=True), np.array(values, dtype=np.float16)):
        got = as_float32(tensor)
        assert got.dtype == np.float32 and got.tolist() == values


def test_weights_are_checked() -> None:
    weights = Weights({"a": np.zeros((2, 3)), "b": np.zeros(1)})
    assert weights.take("a", 2, 3).shape == (2, 3)
    with pytest.raises(CheckpointError, match="'b'"):
        weights.finish()
    with pytest.raises(CheckpointError, match="lack 'c'"):
        weights.take("c", 1)
    with pytest.raises(CheckpointError, match=r"\[1\], the model shape wants \[2\]"):
        weights.take("b", 2)


@pytest.mark.slow
def test_data_beyond_two_gigabytes_are_found(tmp_path: Path) -> None:
    """Broadcast arrays take no memory here; the last tensor begins after the 2 GiB that protobuf itself could hold."""
    ort = pytest.importorskip("onnxruntime")
    g = Graph("large")
    ids = g.input("ids", "int64", ["n"])
    table = g.weight("table", np.broadcast_to(np.float32(3), (540_000, 1024)))
    last = np.random.default_rng(0).standard_normal((96, 1024), dtype=np.float32)
    rows = g.node("Gather", table, ids, axis=0)
    g.output(g.node("Gemm", rows, g.weight("last", last), transB=1, name="y"), "float32", ["n", 96])
    files = g.save(tmp_path, external=True)
    assert files[0].bytes < 10_000 and files[1].bytes > 2**31
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "1")
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), options, providers=["CPUExecutionProvider"])
    got = session.run(None, {"ids": np.array([7, 539_999])})[0]
    np.testing.assert_allclose(got, np.broadcast_to(3 * last.sum(axis=1), (2, 96)), atol=1e-3)
