"""Runs that go on with an adapter that was there before."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch

from ondevice.data.tokenizer_byte import ByteTokenizer
from ondevice.data.tokenizer_files import save_tokenizer
from ondevice.errors import CheckpointError, DataError, UsageError
from ondevice.export.adapter import export_adapter
from ondevice.infer.open import load_decoder
from ondevice.model.build import build_model
from ondevice.model.lora import add_lora, merge
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.peft import CONFIG, TENSORS, load_adapter, open_peft, write_peft
from ondevice.model.safetensors import open_file, write
from ondevice.run.config import read_wish
from ondevice.run.files import sha256_of, write_json
from ondevice.run.recipe import AdapterRecipe, ModelShape
from ondevice.run.store import Store
from ondevice.study.task_score import baseline_model
from ondevice.train.adapter_wish import filled
from ondevice.train.fork import fork_run, plan_fork
from ondevice.train.fork_config import ForkWish
from ondevice.train.launch import launch, make_loop
from ondevice.train.wish import resume_or_refuse
from tests.displays import Silent
from tests.left import left_after

SHAPE = ModelShape(
    arch="llama", vocab_size=300, context=64, layers=2, width=32, heads=4, kv_heads=2, hidden=48, qkv_bias=True
)
ADAPTER = AdapterRecipe(rank=3, alpha=5.0, dropout=0.3, targets=("k_proj", "down_proj"), rank_stabilized=True)


def base_folder(folder, *, seed=77):
    save_tokenizer(ByteTokenizer(), folder)
    state = build_model(SHAPE, seed=seed).state_dict()
    write(folder / "model.safetensors", to_hugging_face(SHAPE, state), {"format": "pt"})
    write_json(folder / "config.json", hugging_face_config(SHAPE))
    return folder


@pytest.fixture
def base(tmp_path):
    return base_folder(tmp_path / "base")


@pytest.fixture
def parent(tmp_path):
    """An adapter as PEFT stores it, which is no longer nothing; of its base it says a name alone."""
    model = build_model(SHAPE, seed=77)
    add_lora(model, ADAPTER, seed=5)
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(0.0, 0.3, generator=generator)
    folder = tmp_path / "parent"
    folder.mkdir()
    write_peft(folder, model, ADAPTER, base="someone/small")
    return folder


@pytest.fixture
def tuned(make, base, parent):
    def build(*changes, name="tuned"):
        wish = [f"model.base={base}", "model.layers=2", "model.width=32", "model.heads=4", "adapter.method=lora"]
        return make(*wish, f"model.adapter={parent}", "sample.count=0", "eval.panel=0", *changes, name=name)

    return build


def saved(run):
    checkpoint, _ = Store(run.checkpoints).latest()
    with open_file(checkpoint.path / "model.safetensors") as file:
        return {name: file.tensor(name).clone() for name in file.names}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def logits(model):
    ids = torch.arange(30)[None]
    with torch.no_grad():
        return model.logits(model(ids))


def rewrite(folder, change):
    with open_file(folder / TENSORS) as file:
        tensors = {name: file.tensor(name).clone() for name in file.names}
    change(tensors)
    write(folder / TENSORS, tensors, {"format": "pt"})


def test_a_run_begins_with_the_adapter_and_what_it_brings_along(tuned, parent):
    run = tuned("train.steps=2", "adapter.dropout=0.1", "adapter.base_format=int8")
    recipe = run.read_recipe()
    assert (recipe.adapter.rank, recipe.adapter.alpha, recipe.adapter.targets) == (3, 5.0, ("k_proj", "down_proj"))
    assert recipe.adapter.rank_stabilized
    assert (recipe.adapter.dropout, recipe.adapter.base_format) == (0.1, "int8")
    assert (recipe.adapter.parent.path, recipe.adapter.parent.sha256) == (str(parent), sha256_of(parent / TENSORS))
    told = recipe.why["model.adapter"]
    assert "rank 3, alpha 5" in told and str(parent) in told and "does not say" in told
    loop = make_loop(run, display=Silent())
    assert same({name: p.detach() for name, p in loop.state.model.named_parameters()}, open_peft(parent, SHAPE).tensors)
    loop.telemetry.close()


def test_what_it_is_compared_with_is_the_base_with_the_adapter(tuned, parent):
    wanted = build_model(SHAPE, seed=77)
    add_lora(wanted, ADAPTER, seed=None)
    load_adapter(wanted, open_peft(parent, SHAPE))
    merge(wanted)
    found = baseline_model(tuned("train.steps=2"))
    torch.testing.assert_close(logits(found), logits(wanted.eval()), rtol=0, atol=1e-5)
    assert (logits(found) - logits(build_model(SHAPE, seed=77).eval())).abs().max() > 0.1


def test_it_resumes_to_the_bit_and_needs_the_parent_no_more(tuned, parent):
    wishes = ("adapter.dropout=0.1", "train.steps=6", "eval.count=0")
    whole, cut = tuned(*wishes), tuned(*wishes, name="cut")
    assert launch(whole, display=Silent()).outcome == "finished"
    left_after(cut, 3)
    before = open_peft(parent, SHAPE).tensors
    began = {name: tensor.clone() for name, tensor in before.items()}
    shutil.rmtree(parent)
    assert launch(cut, display=Silent()).outcome == "finished"
    assert same(saved(whole), saved(cut)) and not same(saved(whole), began)
    load_decoder(cut, Store(cut.checkpoints).latest()[0])
    fork = fork_run(plan_fork(cut, Store(cut.checkpoints).latest()[0], ForkWish(name="child", steps=1)))
    assert fork.read_recipe().adapter == cut.read_recipe().adapter


def test_our_own_adapter_knows_its_base(tuned, make, base, tmp_path):
    first = tuned("train.steps=2", "eval.count=0")
    assert launch(first, display=Silent()).outcome == "finished"
    export_adapter(first.read_recipe(), Store(first.checkpoints).latest()[0], tmp_path / "ours")
    second = tuned(f"model.adapter={tmp_path / 'ours'}", name="second")
    assert "does not say" not in second.read_recipe().why["model.adapter"]
    loop = make_loop(second, display=Silent())
    assert same({name: p.detach() for name, p in loop.state.model.named_parameters()}, saved(first))
    loop.telemetry.close()
    other = base_folder(tmp_path / "other", seed=78)
    with pytest.raises(CheckpointError, match="an adapter for another base"):
        tuned(f"model.adapter={tmp_path / 'ours'}", f"model.base={other}", name="third")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("adapter.rank=8",), r"adapter\.rank is 8, but the adapter of model\.adapter has 3; leave it out"),
        (("adapter.alpha=16",), r"adapter\.alpha is 16, but .* has 5"),
        (("adapter.targets=['q_proj']",), r"adapter\.targets is q_proj, but .* has k_proj, down_proj"),
        (("adapter.rank_stabilized=false",), r"is false, but .* has true"),
        (("adapter.method=none",), r"add adapter\.method = 'lora'"),
        (("model.base=",), r"name that with model\.base"),
    ],
)
def test_a_wish_for_another_adapter_is_refused(tuned, changes, words):
    with pytest.raises(UsageError, match=words):
        tuned(*changes)


def test_wishes_that_agree_are_none(tuned):
    tuned("adapter.rank=3", "adapter.alpha=5", "adapter.targets=['down_proj','k_proj']", "adapter.rank_stabilized=true")


def test_what_an_earlier_version_wrote_out_is_the_same_wish(tuned):
    run = tuned("model.adapter=")
    earlier = dataclasses.replace(read_wish(run.config), adapter=filled(read_wish(run.config).adapter))
    assert earlier.adapter.rank == 8
    assert resume_or_refuse(earlier).name == "tuned"
    with pytest.raises(UsageError, match=r"adapter\.rank = 8, not 4"):
        resume_or_refuse(dataclasses.replace(earlier, adapter=dataclasses.replace(earlier.adapter, rank=4)))


def first_name(tensors):
    return min(tensors)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[first_name(t)].view(-1)[3].fill_(float("nan")), "values that are no finite numbers"),
        (lambda t: t[first_name(t)].view(-1)[3].fill_(float("inf")), "values that are no finite numbers"),
        (lambda t: t.update({first_name(t): t[first_name(t)].int()}), "values that are no finite numbers"),
        (lambda t: t.pop(first_name(t)), "is missing: an adapter for another model"),
        (lambda t: t.update({first_name(t): torch.zeros(3, 31)}), r"has shape \[3, 31\]"),
        (lambda t: t.update({"base_model.more": torch.zeros(3)}), "has no place here"),
    ],
)
def test_a_damaged_adapter_or_one_of_another_model_is_refused(tuned, parent, change, words):
    rewrite(parent, change)
    with pytest.raises(CheckpointError, match=words):
        tuned()


@pytest.mark.parametrize(
    "more",
    [
        {"alpha_pattern": {"k_proj": 64}},
        {"rank_pattern": {"k_proj": 3}},
        {"init_lora_weights": "pissa"},
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
    ],
)
def test_what_would_be_computed_otherwise_is_refused(tuned, parent, more):
    (parent / CONFIG).write_text(json.dumps({**json.loads((parent / CONFIG).read_text()), **more}))
    with pytest.raises(CheckpointError, match=f"'{next(iter(more))}' is .* not supported"):
        tuned()


def test_a_folder_without_an_adapter_is_said(tuned, tmp_path):
    with pytest.raises(DataError, match="no adapter there"):
        tuned(f"model.adapter={tmp_path}")


def test_an_adapter_that_changed_or_went_before_the_first_step_is_said(tuned, parent):
    run = tuned("train.steps=2")
    rewrite(parent, lambda tensors: tensors[first_name(tensors)].mul_(2))
    with pytest.raises(CheckpointError, match="not the adapter that this run was planned with"):
        launch(run, display=Silent())
    shutil.rmtree(parent)
    with pytest.raises(CheckpointError, match="is gone; put it back"):
        launch(run, display=Silent())
