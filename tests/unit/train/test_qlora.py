"""Runs whose adapter learns beside a quantized base."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.data.tokenizer_files import save_tokenizer
from ondevice.export.adapter import export_adapter
from ondevice.infer.open import load_decoder
from ondevice.model.base import build_for
from ondevice.model.build import build_model
from ondevice.model.frozen import FrozenMatrix
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.safetensors import open_file, write
from ondevice.run.files import write_json
from ondevice.run.recipe import ModelShape
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train.fork import fork_run, plan_fork
from ondevice.train.fork_config import ForkWish
from ondevice.train.launch import launch
from tests.displays import Silent
from tests.left import left_after

COMMON = {"context": 64, "layers": 2, "width": 64, "heads": 4, "hidden": 96, "vocab_size": 300}
SHAPES = {
    "llama": ModelShape(arch="llama", kv_heads=2, qkv_bias=True, **COMMON),
    "gpt2": ModelShape(arch="gpt2", kv_heads=4, tied=False, **COMMON),
}
FORMATS = ("bf16", "int8", "int4", "nf4")


def folder_of(shape, state, folder):
    save_tokenizer(ByteTokenizer(), folder)
    write(folder / "model.safetensors", to_hugging_face(shape, state), {"format": "pt"})
    write_json(folder / "config.json", hugging_face_config(shape))
    return folder


@pytest.fixture
def bases(tmp_path):
    return {
        arch: folder_of(shape, build_model(shape, seed=77).state_dict(), tmp_path / arch)
        for arch, shape in SHAPES.items()
    }


@pytest.fixture
def tuned(make, bases):
    def build(*changes, arch="llama", name="tuned"):
        sizes = [f"model.base={bases[arch]}", "model.layers=2", "model.width=64", "model.heads=4"]
        targets = "['c_attn','c_proj']" if arch == "gpt2" else "['q_proj','v_proj','down_proj']"
        wish = ["adapter.method=lora", f"adapter.targets={targets}", "train.lr=0.01"]
        return make(*sizes, *wish, *changes, name=name)

    return build


def saved(run):
    checkpoint, _ = Store(run.checkpoints).latest()
    with open_file(checkpoint.path / "model.safetensors") as file:
        return {name: file.tensor(name).clone() for name in file.names}


def val_losses(run):
    return [record["val_loss_mixed"] for record in read_records(run.telemetry) if record["kind"] == "eval"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_it_learns_and_saves_the_adapter_alone(tuned, arch, form):
    run = tuned("train.steps=5", f"adapter.base_format={form}", arch=arch)
    assert run.read_recipe().adapter.base_format == form
    assert launch(run, display=Silent()).outcome == "finished"
    losses = val_losses(run)
    assert losses[-1] < losses[0]
    assert all(".lora_" in name for name in saved(run))


@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_it_resumes_to_the_bit(tuned, form):
    wishes = (f"adapter.base_format={form}", "adapter.dropout=0.1", "train.steps=6")
    whole, cut = tuned(*wishes), tuned(*wishes, name="cut")
    assert launch(whole, display=Silent()).outcome == "finished"
    left_after(cut, 3)
    assert launch(cut, display=Silent()).outcome == "finished"
    one, two = saved(whole), saved(cut)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("form", FORMATS)
def test_merged_it_is_the_unpacked_base_with_the_adapter_added(tuned, form):
    run = tuned("train.steps=3", f"adapter.base_format={form}")
    assert launch(run, display=Silent()).outcome == "finished"
    checkpoint = Store(run.checkpoints).latest()[0]
    merged, live = load_decoder(run, checkpoint), build_for(run.read_recipe(), fresh=False).eval()
    live.load_state_dict(saved(run), strict=False)
    ids = torch.randint(300, (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(merged.logits(merged(ids)), live.logits(live(ids)), rtol=0, atol=1e-4)
    assert not any(isinstance(module, FrozenMatrix) for module in merged.modules())
    assert dict(merged.named_parameters()).keys() == build_model(SHAPES["llama"], seed=1).state_dict().keys()


def test_its_adapter_is_exported_though_the_base_is_packed(tuned, tmp_path):
    run = tuned("train.steps=2", "adapter.base_format=nf4")
    assert launch(run, display=Silent()).outcome == "finished"
    recipe, checkpoint = run.read_recipe(), Store(run.checkpoints).latest()[0]
    assert set(export_adapter(recipe, checkpoint, tmp_path / "adapter")) == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_bf16_arithmetic_goes_with_it(tuned):
    run = tuned("train.steps=5", "adapter.base_format=nf4", "train.precision=bf16")
    assert launch(run, display=Silent()).outcome == "finished"
    losses = val_losses(run)
    assert losses[-1] < losses[0]


# Mean difference of the logits of a trained model over their standard deviation, and how much its loss may rise in
# nats; measured on a model of 0.1 M parameters (larger ones lose less), with room for other kernels.
COST = {"bf16": (0.003, 0.002), "int8": (0.006, 0.002), "int4": (0.05, 0.02), "nf4": (0.09, 0.02)}


def test_what_the_formats_cost_a_trained_model(make, tmp_path):
    sizes = ("model.width=64", "model.heads=4", "model.arch=llama", "train.optimizer=adamw", "train.lr=0.01")
    plain = make(*sizes, "train.steps=60", name="plain")
    assert launch(plain, display=Silent()).outcome == "finished"
    shape = plain.read_recipe().model
    base = folder_of(shape, saved(plain), tmp_path / "learned")
    found = {}
    for form in ("fp32", *FORMATS):
        run = make(
            f"model.base={base}",
            "adapter.method=lora",
            f"adapter.base_format={form}",
            "train.steps=1",
            *sizes[:2],
            name=form,
        )
        model = build_for(run.read_recipe(), fresh=True).eval()
        ids = torch.tensor(list(("the cat sat on a mat and saw another dog run home\n" * 8).encode()))[:384].view(
            12, 32
        )
        with torch.no_grad():
            logits = model.logits(model(ids))
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        found[form] = logits, loss.item()
    exact, least = found["fp32"]
    for form in FORMATS:
        logits, loss = found[form]
        apart = ((logits - exact).abs().mean() / exact.std()).item()
        assert 0 < apart < COST[form][0] and abs(loss - least) < COST[form][1], form


CHILD = """
import sys
from pathlib import Path
import torch
from ondevice.device.memory import peak_rss_mb
from ondevice.model.base import base_recipe, build_for
from ondevice.model.frozen_decoder import build_frozen, fill, seal
from ondevice.model.hugging_face import open_hugging_face
torch.randn(64, 64) @ torch.randn(64, 64)
base = open_hugging_face(Path(sys.argv[1]))
before = peak_rss_mb()
model = build_frozen(base.shape, sys.argv[2])
for name, first, part in base.tensors():
    fill(model, name, first, part)
seal(model)
print(peak_rss_mb() - before)
print(sum(buffer.numel() * buffer.element_size() for buffer in model.buffers()) / 2**20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is read from /proc")
@pytest.mark.parametrize("form", ["int8", "nf4"])
def test_the_whole_model_is_never_in_memory(tmp_path, form):
    shape = ModelShape(
        arch="llama", vocab_size=24_000, context=64, layers=6, width=512, heads=8, kv_heads=8, hidden=1408
    )
    state = build_model(shape, seed=None).state_dict()
    for tensor in state.values():
        tensor.fill_(0.01)
    whole_mb = sum(tensor.numel() * 4 for tensor in state.values()) / 2**20
    folder_of(shape, state, tmp_path / "large")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path / "large"), form],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    grown_mb, packed_mb = map(float, done.stdout.split())
    assert whole_mb > 120 and packed_mb < (0.3 if form == "int8" else 0.2) * whole_mb
    # Pieces of half a megabyte with what they are computed through, a joint matrix, and pages of the file.
    assert grown_mb < packed_mb + 45


def test_a_fork_learns_the_adapter_on_beside_the_same_base(tuned):
    run = tuned("adapter.base_format=int8")
    assert launch(run, display=Silent()).outcome == "finished"
    store = Store(run.checkpoints)
    checkpoint, _ = store.latest()
    child = fork_run(plan_fork(run, checkpoint, ForkWish(name="child", steps=4)))
    before, recipe = run.read_recipe(), child.read_recipe()
    assert (recipe.base, recipe.adapter) == (before.base, before.adapter) and recipe.adapter is not None
    assert launch(child, display=Silent()).outcome == "finished"
    assert saved(child).keys() == saved(run).keys()
    assert any(not torch.equal(saved(child)[name], tensor) for name, tensor in saved(run).items())
