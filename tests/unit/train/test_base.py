"""Runs that begin with the weights of another model."""

from __future__ import annotations

import shutil

import pytest
import torch

from ondevice.cli.main import main
from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.data.tokenizer_files import save_tokenizer
from ondevice.errors import CheckpointError, DataError, UsageError
from ondevice.export.adapter import export_adapter
from ondevice.infer.onnx_backend import OnnxBackend
from ondevice.infer.open import load_decoder
from ondevice.model.build import build_model
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.peft import open_peft
from ondevice.model.safetensors import open_file, write
from ondevice.run.files import write_json
from ondevice.run.recipe import ModelShape
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train.launch import launch, make_loop
from tests.displays import Silent
from tests.left import left_after

SHAPE = ModelShape(
    arch="llama",
    vocab_size=300,
    context=64,
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    hidden=48,
    rope_theta=500.0,
    qkv_bias=True,
)


@pytest.fixture
def base(tmp_path):
    """A folder of Hugging Face with a Qwen2 of random weights that are no initialisation of ours."""
    folder = tmp_path / "base"
    save_tokenizer(ByteTokenizer(), folder)
    model = build_model(SHAPE, seed=77)
    write(folder / "model.safetensors", to_hugging_face(SHAPE, model.state_dict()), {"format": "pt"})
    write_json(folder / "config.json", hugging_face_config(SHAPE))
    return folder


@pytest.fixture
def tuned(make, base):
    """``tuned("train.steps=6", name="x")`` -> a run that begins with the base."""

    def build(*changes, name="tuned"):
        sizes = [f"model.base={base}", "model.layers=2", "model.width=32", "model.heads=4", "train.optimizer=adamw"]
        return make(*sizes, *changes, name=name)

    return build


def weights(run):
    checkpoint, _ = Store(run.checkpoints).latest()
    with open_file(checkpoint.path / "model.safetensors") as file:
        return {name: file.tensor(name).clone() for name in file.names}


def test_a_run_begins_with_the_weights_of_its_base(tuned, base):
    run = tuned("train.steps=3", "train.lr=1e-5")
    recipe = run.read_recipe()
    assert (recipe.base.family, recipe.base.path) == ("qwen2", str(base))
    assert recipe.model.qkv_bias and recipe.model.rope_theta == 500.0 and recipe.model.context == 32
    loop = make_loop(run, display=Silent())
    for name, tensor in build_model(SHAPE, seed=77).state_dict().items():
        assert torch.equal(loop.state.model.state_dict()[name], tensor), name
    loop.telemetry.close()


def test_from_the_first_checkpoint_on_the_base_is_not_needed(tuned, base):
    whole, cut = tuned("train.steps=8"), tuned("train.steps=8", name="cut")
    assert launch(whole, display=Silent()).outcome == "finished"
    left_after(cut, 4)
    shutil.rmtree(base)
    assert launch(cut, display=Silent()).outcome == "finished"
    resumed = [record for record in read_records(cut.telemetry) if record["kind"] == "launch"][-1]["resumed_step"]
    assert resumed == 4
    one, two = weights(whole), weights(cut)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_base_that_changed_or_is_gone_is_said(tuned, base):
    run = tuned("train.steps=3")
    state = build_model(SHAPE, seed=78).state_dict()
    write(base / "model.safetensors", to_hugging_face(SHAPE, state), {"format": "pt"})
    with pytest.raises(CheckpointError, match="not those that this run was planned with"):
        launch(run, display=Silent())
    shutil.rmtree(base)
    with pytest.raises(CheckpointError, match="is gone; put it back"):
        launch(run, display=Silent())


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ("model.width=64", UsageError, r"'model\.width' is 64, but model\.base has 32"),
        ("model.context=128", UsageError, r"more than the 64 tokens of model\.base"),
        ("model.base=/nowhere/at/all", DataError, "no such folder"),
    ],
)
def test_what_the_base_has_not_is_refused(tuned, change, kind, words):
    with pytest.raises(kind, match=words):
        tuned(change)


def learned(run):
    checkpoint, _ = Store(run.checkpoints).latest()
    with open_file(checkpoint.path / "model.safetensors") as file:
        return set(file.names)


def test_an_adapter_learns_while_its_base_stays(tuned, base):
    run = tuned("adapter.method=lora", "adapter.dropout=0.2", "train.optimizer=muon", "train.steps=6", "train.lr=0.01")
    recipe = run.read_recipe()
    assert recipe.adapter.targets == ("q_proj", "v_proj") and recipe.train.optimizer == "adamw"
    assert launch(run, display=Silent()).outcome == "finished"
    assert learned(run) == {
        f"blocks.{block}.attn.qkv.lora_{letter}.{name}"
        for block in (0, 1)
        for letter in "AB"
        for name in ("q_proj", "v_proj")
    }
    losses = [record["val_loss_mixed"] for record in read_records(run.telemetry) if record["kind"] == "eval"]
    assert losses[-1] < losses[0]
    plain = build_model(SHAPE, seed=77).state_dict()
    merged = load_decoder(run, Store(run.checkpoints).latest()[0])
    changed = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, plain[name])}
    assert changed == {"blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight"}


def test_an_adapter_resumes_to_the_bit(tuned):
    wishes = ("adapter.method=lora", "adapter.dropout=0.1", "adapter.targets=['o_proj','up_proj']", "train.steps=8")
    whole, cut = tuned(*wishes), tuned(*wishes, name="cut")
    assert launch(whole, display=Silent()).outcome == "finished"
    left_after(cut, 3)
    assert launch(cut, display=Silent()).outcome == "finished"
    one, two = weights(whole), weights(cut)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_an_adapter_needs_its_base_and_targets(tuned, make, base):
    with pytest.raises(UsageError, match="name it with model"):
        make("adapter.method=lora")
    with pytest.raises(UsageError, match=r"'c_attn' matches no matrix"):
        tuned("adapter.method=lora", "adapter.targets=['c_attn']")
    run = tuned("adapter.method=lora", "train.steps=2")
    assert launch(run, display=Silent()).outcome == "finished"
    shutil.rmtree(base)
    with pytest.raises(CheckpointError, match="means nothing without it"):
        load_decoder(run, Store(run.checkpoints).latest()[0])


def test_its_adapter_is_exported_for_peft(tuned, make, base, tmp_path):
    run = tuned("adapter.method=lora", "train.steps=4", "train.lr=0.01")
    assert launch(run, display=Silent()).outcome == "finished"
    recipe, checkpoint = run.read_recipe(), Store(run.checkpoints).latest()[0]
    files = export_adapter(recipe, checkpoint, tmp_path / "adapter")
    assert set(files) == {"adapter_config.json", "adapter_model.safetensors"}
    opened, saved = open_peft(tmp_path / "adapter", recipe.model), weights(run)
    assert opened.tensors.keys() == saved.keys()
    assert all(torch.equal(opened.tensors[name], saved[name]) for name in saved)
    with pytest.raises(UsageError, match="exists already"):
        export_adapter(recipe, checkpoint, tmp_path / "adapter")
    plain = make("train.steps=1", name="plain")
    with pytest.raises(UsageError, match="has no adapter"):
        export_adapter(plain.read_recipe(), checkpoint, tmp_path / "other")


def test_other_exports_have_its_adapter_merged_in(tuned, tmp_path, capsys):
    transformers, _ = pytest.importorskip("transformers"), pytest.importorskip("onnxruntime")
    run = tuned("adapter.method=lora", "train.steps=4", "train.lr=0.05")
    assert launch(run, display=Silent()).outcome == "finished"
    wanted = load_decoder(run, Store(run.checkpoints).latest()[0])
    ids = torch.arange(30)[None]
    logits = wanted.logits(wanted(ids)).detach()
    for flags in (["--format", "hf"], ["--quantize", "int8"]):
        assert main(["export", str(run.path), "--out", str(tmp_path / flags[1]), *flags]) == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    assert theirs.config.model_type == "qwen2"
    torch.testing.assert_close(theirs(ids).logits.detach(), logits, rtol=0, atol=1e-4)
    assert "LoRA of rank" in (tmp_path / "hf" / "README.md").read_text()
    got = OnnxBackend(tmp_path / "int8").logits(ids.numpy())
    assert (abs(got - logits.numpy()).mean() / logits.std()) < 0.1
