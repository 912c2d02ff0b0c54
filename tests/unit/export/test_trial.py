"""Choosing bits by text: the smallest that is good enough, what was tried, and when it cannot be chosen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ondevice.errors import DataError, DeviceError, UsageError
from ondevice.export import trial
from ondevice.export.measure import Perplexity, token_losses
from ondevice.export.onnx import export_onnx
from ondevice.infer.export_folder import NATIVE, ExportFolder, release
from ondevice.infer.onnx_backend import OnnxBackend
from ondevice.infer.onnx_session import OLDEST
from ondevice.run.recipe import ModelShape

SHAPE = ModelShape(
    arch="llama", vocab_size=300, context=32, layers=3, width=64, heads=4, kv_heads=2, hidden=96, tied=True
)
TEXT = [np.random.default_rng(1).integers(0, 300, 30) for _ in range(4)]


@pytest.fixture(scope="module")
def parts():
    """Weights of a model, and its logits."""
    pytest.importorskip("onnxruntime")
    from ondevice.infer.torch_backend import TorchBackend
    from ondevice.model.build import build_model

    model = build_model(SHAPE, seed=3).eval()
    return dict(model.named_parameters()), TorchBackend(model).logits


def export(folder: Path, parts, **settings):
    state, reference = parts
    return export_onnx(SHAPE, state, folder, metadata={}, reference=reference, **settings)


@pytest.mark.parametrize("kind", ["fp32", "int8", "int4"])
def test_parity_json_is_measured(kind: str, parts, tmp_path: Path) -> None:
    info = export(tmp_path / "x", parts, quantize=kind, text=TEXT)
    told = json.loads((tmp_path / "x" / "parity.json").read_text())
    sizes = sum(each.stat().st_size for each in (tmp_path / "x").glob("model.onnx*"))
    assert (told["plan"], told["bytes"], told["checked"]) == (kind, sizes, True)
    assert told["size"] == round(sizes / (4 * info.parameters), 4)
    assert told["perplexity"]["tokens"] == 4 * 29 and told["decode_tok_s"] > 0
    before, after = told["perplexity"]["before"], told["perplexity"]["after"]
    assert told["perplexity"]["change"] == pytest.approx(after / before - 1, abs=1e-9)
    assert told["tolerance"] == (1e-4 if kind == "fp32" else None)
    assert (told["relative_error"] < 1e-5) == (kind == "fp32")
    raw = json.loads((tmp_path / "x" / "export.json").read_text())
    assert raw["precision"] == kind and raw["plan"]["embedding"] == kind


def test_large_weights_go_beside_the_model(parts, tmp_path: Path, monkeypatch) -> None:
    small = export(tmp_path / "x", parts)
    monkeypatch.setattr(trial, "_EXTERNAL_ABOVE", 4 * small.parameters - 1)
    large = export(tmp_path / "y", parts)
    names = [{each.name for each in info.files} for info in (small, large)]
    assert names[1] - names[0] == {"model.onnx.data"} and large.parity is not None
    texts = [OnnxBackend(tmp_path / each, threads=1).logits(TEXT[0][None]) for each in "xy"]
    assert np.abs(texts[0] - texts[1]).max() < 1e-4
    (tmp_path / "y" / "model.onnx.data").write_bytes(b"short")
    with pytest.raises(DataError, match=r"model\.onnx\.data"):
        OnnxBackend(tmp_path / "y", verify=True)


def test_auto_takes_the_smallest_that_is_good_enough(parts, tmp_path: Path, monkeypatch) -> None:
    grown = iter([0.2, 0.031, 0.029])
    monkeypatch.setattr(
        trial.Perplexity, "of", lambda *_: Perplexity(before=2, after=2, change=next(grown), change_stderr=0, tokens=9)
    )
    info = export(tmp_path / "x", parts, quantize="auto", text=TEXT, external=True)
    assert list(info.trial.tried.values()) == [0.2, 0.031]
    assert next(iter(info.trial.tried)) == "int4"
    assert json.loads((tmp_path / "x" / "parity.json").read_text())["lost_too_much"] == dict(info.trial.tried)
    assert ExportFolder.open(tmp_path / "x", verify=True)
    assert OnnxBackend(tmp_path / "x").step(np.array([[1, 2]])).shape == (1, 300)


def test_auto_ends_with_the_whole_model(parts, tmp_path: Path, monkeypatch) -> None:
    bad = Perplexity(before=2, after=4, change=1.0, change_stderr=0, tokens=9)
    monkeypatch.setattr(trial.Perplexity, "of", lambda *_: bad)
    info = export(tmp_path / "x", parts, quantize="auto", text=TEXT)
    assert info.trial.plan.name == "fp32" and len(info.trial.tried) == len(trial.CANDIDATES) - 1


def test_auto_needs_text_and_onnxruntime(parts, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(UsageError, match="validation text"):
        export(tmp_path / "x", parts, quantize="auto")
    with pytest.raises(UsageError, match="int3"):
        export(tmp_path / "x", parts, quantize="int3")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(DeviceError, match="not installed"):
        export(tmp_path / "x", parts, quantize="auto", text=TEXT)
    assert list(tmp_path.iterdir()) == []
    info = export(tmp_path / "x", parts, quantize="int4", text=TEXT)
    assert info.parity is None and "not installed" in info.unchecked


@pytest.mark.parametrize("kind", ["fp32", "int4"])
def test_native_operators_are_taken_where_they_compute_the_same(kind: str, parts, tmp_path: Path) -> None:
    if not runs_native():
        pytest.skip("this onnxruntime is older than opset 23")
    info = export(tmp_path / "x", parts, quantize=kind, form=NATIVE, text=TEXT)
    assert (info.trial.opset, info.trial.not_native) == (23, "")
    raw = json.loads((tmp_path / "x" / "export.json").read_text())
    assert (raw["opset"], raw["ir_version"], raw["onnxruntime"]) == (23, 11, "1.23")
    portable = export(tmp_path / "y", parts, quantize=kind, text=TEXT)
    assert info.nodes < 0.7 * portable.nodes
    got, wanted = (OnnxBackend(tmp_path / each).logits(TEXT[0][None]) for each in "xy")
    assert np.abs(got - wanted).max() < (1e-5 if kind == "fp32" else 0.1)


def runs_native() -> bool:
    import onnxruntime

    return release(onnxruntime.__version__) >= release(OLDEST[NATIVE])


def test_an_onnxruntime_that_is_too_old_gets_the_portable_operators(parts, tmp_path: Path, monkeypatch) -> None:
    def too_old(oldest: str) -> None:
        raise DeviceError(f"onnxruntime is too old, this needs {oldest}")

    monkeypatch.setattr(trial, "import_onnxruntime", too_old)
    info = export(tmp_path / "x", parts, form=NATIVE)
    assert info.trial.opset == 17 and info.trial.not_native.endswith("this needs 1.23") and info.parity is not None


@pytest.mark.parametrize("fault", [DataError("cannot load it"), trial.WrongGraphError("is wrong")])
def test_native_operators_that_fail_give_way_to_the_portable_ones(fault, parts, tmp_path: Path, monkeypatch) -> None:
    if not runs_native():
        pytest.skip("this onnxruntime refuses them itself")
    right = trial.verify_onnx
    calls = iter([True, False])

    def verify(*args, **settings):
        if next(calls):
            raise fault
        return right(*args, **settings)

    monkeypatch.setattr(trial, "verify_onnx", verify)
    info = export(tmp_path / "x", parts, form=NATIVE)
    assert (info.trial.opset, info.trial.not_native) == (17, str(fault))
    assert json.loads((tmp_path / "x" / "export.json").read_text())["opset"] == 17


def test_losses_are_those_of_cross_entropy(parts) -> None:
    torch = pytest.importorskip("torch")
    logits = torch.from_numpy(parts[1](TEXT[0][None, :-1])[0])
    wanted = torch.nn.functional.cross_entropy(logits, torch.from_numpy(TEXT[0][1:]), reduction="none")
    assert np.abs(token_losses(parts[1], TEXT[:1]) - wanted.numpy()).max() < 1e-5


def test_perplexity_compares_token_by_token() -> None:
    before = np.array([1.0, 2.0, 3.0])
    same = Perplexity.of(before, before + np.log(1.02))
    assert same.change == pytest.approx(0.02) and same.change_stderr == pytest.approx(0, abs=1e-12)
    assert (same.before, same.tokens) == (pytest.approx(np.exp(2)), 3)
    assert Perplexity.of(before, before + np.array([0.1, -0.1, 0.0])).change_stderr > 0.05


def test_a_graph_of_another_model_is_refused(parts, tmp_path: Path) -> None:
    from ondevice.errors import OndeviceError

    state, reference = parts
    mixed = {**state, "norm.weight": -state["norm.weight"].detach()}
    with pytest.raises(OndeviceError, match="differs from the model"):
        export_onnx(SHAPE, mixed, tmp_path / "x", metadata={}, reference=reference, quantize="int4")
    with pytest.raises(UsageError, match="mamba"):
        trial.build_graph(replace(SHAPE, arch="mamba"), state)
