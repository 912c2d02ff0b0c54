"""Folders of Hugging Face and PEFT adapters, opened for generating: the merged model, and refusals by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.errors import CheckpointError, UsageError
from ondevice.infer.open import open_target
from ondevice.model.build import build_model
from ondevice.model.lora import add_lora
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.peft import write_peft
from ondevice.model.safetensors import write
from ondevice.run.files import write_json
from ondevice.run.recipe import AdapterRecipe, ModelShape

SHAPE = ModelShape(
    arch="llama", vocab_size=257, context=32, layers=2, width=32, heads=4, kv_heads=2, hidden=48, tied=True
)
ADAPTER = AdapterRecipe(rank=2, alpha=8.0, dropout=0.0, targets=("q_proj", "down_proj"))
IDS = np.array([[1, 2, 3, 4]])


def make_base(folder, shape=SHAPE):
    ByteTokenizer().save(folder)
    state = build_model(shape, seed=5).state_dict()
    write(folder / "model.safetensors", to_hugging_face(shape, state), {"format": "pt"})
    write_json(folder / "config.json", hugging_face_config(shape))
    return folder


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    return make_base(tmp_path / "base")


@pytest.fixture
def adapted(base, tmp_path):
    """The folder of an adapter, and the logits of base and adapter side by side."""
    model = build_model(SHAPE, seed=5)
    add_lora(model, ADAPTER, seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(1))
        logits = model.eval().logits(model(torch.tensor(IDS))).numpy()
    folder = tmp_path / "adapter"
    folder.mkdir()
    write_peft(folder, model, ADAPTER, base=str(base))
    return folder, logits


def test_a_folder_of_hugging_face_speaks(base):
    opened = open_target(str(base))
    model = build_model(SHAPE, seed=5).eval()
    with torch.no_grad():
        wanted = model.logits(model(torch.tensor(IDS))).numpy()
    np.testing.assert_allclose(opened.backend.logits(IDS), wanted, atol=1e-6)
    assert opened.tokenizer.encode("a") == ByteTokenizer().encode("a")


def test_an_adapter_beside_its_base_and_alone(base, adapted):
    folder, logits = adapted
    for opened in (open_target(str(base), adapter=folder), open_target(str(folder))):
        np.testing.assert_allclose(opened.backend.logits(IDS), logits, atol=1e-5)
        assert str(folder) in opened.what and str(base) in opened.what


def test_the_base_of_an_adapter_may_be_a_pulled_model(base, adapted, tmp_path):
    folder, logits = adapted
    (tmp_path / "home" / "models").mkdir(parents=True)
    base.rename(tmp_path / "home" / "models" / "someone--small")
    text = (folder / "adapter_config.json").read_text()
    (folder / "adapter_config.json").write_text(text.replace(str(base), "someone/small"))
    np.testing.assert_allclose(open_target(str(folder)).backend.logits(IDS), logits, atol=1e-5)


def test_refusals(base, adapted, tmp_path):
    folder, _ = adapted
    with pytest.raises(UsageError, match="goes beside a folder of Hugging Face"):
        open_target(str(folder), adapter=folder)
    with pytest.raises(UsageError, match="is one model already"):
        open_target(str(base), step=3)
    other = make_base(tmp_path / "other", ModelShape(**{**vars(SHAPE), "width": 16}))
    with pytest.raises(CheckpointError, match="lora_A"):
        open_target(str(other), adapter=folder)
    with pytest.raises(CheckpointError, match="is no adapter"):
        open_target(str(base), adapter=other)
    base.rename(tmp_path / "gone")
    with pytest.raises(UsageError, match=r"its base, .* is not here; name its folder"):
        open_target(str(folder))
