"""An adapter beside its matrices in the ONNX graph: the adapted model's logits, and initializers of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ondevice.export.onnx import export_onnx
from ondevice.infer.export_folder import IN_PLACE, PORTABLE
from ondevice.infer.onnx_backend import OnnxBackend
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.lora import add_lora, beside, lora_layers, merge
from ondevice.run.recipe import AdapterRecipe, ModelShape
from tests.parity.export.models import perturbed

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

_LLAMA = ModelShape(
    arch="llama", vocab_size=97, context=32, layers=2, width=64, heads=4, kv_heads=2, hidden=96, tied=True
)
CASES = {
    "llama, some of a fused matrix": (_LLAMA, ("q_proj", "v_proj", "up_proj", "down_proj"), PORTABLE),
    "gpt2": (replace(_LLAMA, arch="gpt2", kv_heads=4), ("c_attn", "attn.c_proj", "mlp.c_proj"), IN_PLACE),
}


def adapted(shape: ModelShape, targets: tuple[str, ...]):
    model = perturbed(shape)
    add_lora(model, AdapterRecipe(rank=3, alpha=7.0, dropout=0.0, targets=targets), seed=3)
    with torch.no_grad():
        for _, layer in lora_layers(model):
            for b in layer.lora_B.values():
                b.normal_(0, 0.3)
    return model.eval()


@pytest.mark.parametrize("name", CASES)
def test_it_computes_the_adapted_model_with_whole_or_few_bits(name: str, tmp_path: Path) -> None:
    shape, targets, form = CASES[name]
    model = adapted(shape, targets)
    reference = TorchBackend(model).logits
    ids = np.random.default_rng(1).integers(0, 97, (1, 20))
    wanted = reference(ids)
    state = beside(model)
    info = export_onnx(shape, state, tmp_path / "x", metadata={}, reference=reference, form=form)
    assert info.parity is not None and info.parity.max_abs_error < 1e-4 and info.trial.form == form
    held = {each.name: each for each in onnx.load(tmp_path / "x" / "model.onnx").graph.initializer}
    pairs = [each for each in held if each.endswith((".lora_A", ".lora_B"))]
    assert len(pairs) == 2 * len(list(lora_layers(model))) and {held[each].data_type for each in pairs} == {1}
    few = export_onnx(shape, state, tmp_path / "few", metadata={}, quantize="int8", reference=reference, form=form)
    assert few.parity is not None and few.parity.relative_error < 0.1
    got = OnnxBackend(tmp_path / "few", threads=1).logits(ids)
    assert np.sqrt(np.mean((got - wanted) ** 2)) < 0.1 * wanted.std()
    merge(model)  # into the very arrays of the state
    assert np.abs(TorchBackend(model).logits(ids) - wanted).max() < 1e-4
