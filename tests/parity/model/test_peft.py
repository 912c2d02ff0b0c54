"""LoRA against the PEFT library: the same logits and gradients, and files that each reads from the other."""

from __future__ import annotations

import json

import peft
import pytest
import torch
import transformers

from ondevice.errors import CheckpointError, UsageError
from ondevice.model.build import build_model
from ondevice.model.counts import count_parameters
from ondevice.model.lora import add_lora, merge
from ondevice.model.loss import linear_cross_entropy
from ondevice.model.names import from_hugging_face, hugging_face_config, to_hugging_face
from ondevice.model.peft import load_adapter, open_peft, write_peft
from ondevice.model.safetensors import write
from ondevice.model.targets import adapter_parameters
from ondevice.run.recipe import AdapterRecipe, ModelShape

# PEFT asks transformers for names that transformers is giving up.
pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")

SMALL = {"vocab_size": 97, "context": 32, "layers": 2, "width": 48, "hidden": 80}
LLAMA = ModelShape(arch="llama", heads=6, kv_heads=2, **SMALL)
QWEN = ModelShape(arch="llama", heads=4, kv_heads=4, qkv_bias=True, **SMALL)
GPT2 = ModelShape(arch="gpt2", heads=4, kv_heads=4, **SMALL)
CASES = {
    "llama-qv": (LLAMA, AdapterRecipe(rank=4, alpha=8.0, dropout=0.0, targets=("q_proj", "v_proj"))),
    "llama-all": (
        LLAMA,
        AdapterRecipe(
            rank=3,
            alpha=16.0,
            dropout=0.0,
            targets=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
            rank_stabilized=True,
        ),
    ),
    "qwen2-mlp": (QWEN, AdapterRecipe(rank=2, alpha=4.0, dropout=0.0, targets=("up_proj", "down_proj", "k_proj"))),
    "gpt2-attn": (GPT2, AdapterRecipe(rank=4, alpha=8.0, dropout=0.0, targets=("c_attn",))),
    "gpt2-all": (GPT2, AdapterRecipe(rank=4, alpha=8.0, dropout=0.0, targets=("c_attn", "c_proj", "c_fc"))),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    return request.param


def adapted(shape, adapter, *, seed=1):
    """A model whose adapter is no longer zero."""
    model = build_model(shape, seed=9)
    add_lora(model, adapter, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.3, generator=generator)
    return model.eval()


def base_folder(shape, folder):
    folder.mkdir()
    state = build_model(shape, seed=9).state_dict()
    write(folder / "model.safetensors", to_hugging_face(shape, state), {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(hugging_face_config(shape)))
    return folder


def ids_for(shape):
    return torch.randint(shape.vocab_size, (3, 20), generator=torch.Generator().manual_seed(2))


@pytest.fixture
def files(case, tmp_path):
    shape, adapter = case
    base, folder = base_folder(shape, tmp_path / "base"), tmp_path / "adapter"
    folder.mkdir()
    write_peft(folder, adapted(shape, adapter), adapter, base=str(base), base_sha256="00" * 32)
    return base, folder


def theirs(base, folder, **more):
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    return peft.PeftModel.from_pretrained(model, folder, **more).eval()


@torch.no_grad()
def test_peft_reads_our_adapter(case, files):
    shape, adapter = case
    ours, ids = adapted(shape, adapter), ids_for(shape)
    torch.testing.assert_close(theirs(*files)(ids).logits, ours.logits(ours(ids)), rtol=0, atol=1e-4)


@torch.no_grad()
def test_we_read_theirs(case, files, tmp_path):
    shape, adapter = case
    again = tmp_path / "again"
    theirs(*files).save_pretrained(again)
    opened = open_peft(again, shape)
    assert (opened.recipe.rank, opened.recipe.alpha, opened.recipe.rank_stabilized) == (
        adapter.rank,
        adapter.alpha,
        adapter.rank_stabilized,
    )
    model = build_model(shape, seed=9)
    add_lora(model, opened.recipe, seed=None)
    load_adapter(model, opened)
    for name, parameter in adapted(shape, adapter).named_parameters():
        assert torch.equal(dict(model.named_parameters())[name], parameter), name


def test_gradients_are_theirs_and_the_base_has_none(case, files, tmp_path):
    shape, adapter = case
    ours, peers = adapted(shape, adapter), theirs(*files, is_trainable=True)
    ids = ids_for(shape)
    x, y = ids[:, :-1], ids[:, 1:]
    logits = peers(x).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="sum").backward()
    linear_cross_entropy(ours(x).flatten(0, 1), ours.head_weight, y.flatten(), chunk_tokens=7).backward()
    with torch.no_grad():
        for parameter in peers.parameters():
            if parameter.requires_grad:
                parameter.copy_(parameter.grad)
    peers.save_pretrained(tmp_path / "gradients")  # so that they come back under our names
    wanted = open_peft(tmp_path / "gradients", shape).tensors
    assert wanted.keys() == dict(ours.named_parameters()).keys()
    for name, parameter in ours.named_parameters():
        assert (parameter.grad - wanted[name]).norm() < 1e-4 * wanted[name].norm(), name
    recomputed = adapted(shape, adapter)
    recomputed.activation_checkpointing = True
    linear_cross_entropy(recomputed(x).flatten(0, 1), recomputed.head_weight, y.flatten(), chunk_tokens=7).backward()
    for one, two in zip(ours.parameters(), recomputed.parameters(), strict=True):
        assert torch.equal(one.grad, two.grad)


@torch.no_grad()
def test_merging_changes_nothing_but_the_cost(case):
    shape, adapter = case
    model, ids = adapted(shape, adapter), ids_for(shape)
    before = model.logits(model(ids))
    merge(model)
    torch.testing.assert_close(model.logits(model(ids)), before, rtol=0, atol=1e-4)
    assert dict(model.named_parameters()).keys() == build_model(shape, seed=9).state_dict().keys()
    assert not any(parameter.requires_grad for parameter in model.parameters())


@torch.no_grad()
def test_it_begins_as_its_base_and_counts_what_it_learns(case):
    shape, adapter = case
    plain, model, ids = build_model(shape, seed=9).eval(), build_model(shape, seed=9), ids_for(shape)
    add_lora(model, adapter, seed=3)
    assert torch.equal(plain.logits(plain(ids)), model.eval().logits(model(ids)))
    learned = sum(parameter.numel() for parameter in model.parameters())
    assert learned == adapter_parameters(shape, adapter) < count_parameters(shape)
    assert from_hugging_face(shape, to_hugging_face(shape, plain.state_dict())).keys() == plain.state_dict().keys()


def test_dropout_is_drawn_again_alike_when_activations_are_recomputed():
    shape, ids = LLAMA, ids_for(LLAMA)
    adapter = AdapterRecipe(rank=4, alpha=8.0, dropout=0.3, targets=("q_proj", "down_proj"))
    gradients = []
    for recompute in (False, True):
        model = adapted(shape, adapter).train()
        model.activation_checkpointing = recompute
        torch.manual_seed(4)
        model(ids).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(one, two) for one, two in zip(*gradients, strict=True))
    model = adapted(shape, adapter).train()
    assert not torch.equal(model(ids), model(ids)) and torch.equal(model.eval()(ids), model(ids))


def test_the_published_count_of_a_small_model():
    shape = ModelShape(
        arch="llama", vocab_size=49152, context=512, layers=30, width=576, heads=9, kv_heads=3, hidden=1536
    )
    assert (
        adapter_parameters(shape, AdapterRecipe(rank=8, alpha=16, dropout=0, targets=("q_proj", "v_proj"))) == 460_800
    )


def test_targets_that_match_nothing_are_refused():
    with pytest.raises(UsageError, match=r"'q_prj' matches no matrix.*did you mean 'q_proj'"):
        add_lora(build_model(LLAMA, seed=1), AdapterRecipe(rank=2, alpha=2, dropout=0, targets=("q_prj",)), seed=1)


def test_an_adapter_of_another_model_is_refused(tmp_path):
    adapter = AdapterRecipe(rank=2, alpha=2.0, dropout=0.0, targets=("q_proj",))
    write_peft(tmp_path, adapted(LLAMA, adapter), adapter, base="x")
    with pytest.raises(CheckpointError, match="has shape"):
        open_peft(tmp_path, ModelShape(**{**vars(LLAMA), "width": 96}))
    with pytest.raises(CheckpointError, match="matches no matrix"):
        open_peft(tmp_path, GPT2)
    with pytest.raises(CheckpointError, match="is missing"):
        open_peft(tmp_path, ModelShape(**{**vars(LLAMA), "layers": 3}))
    with pytest.raises(CheckpointError, match="has no place"):
        open_peft(tmp_path, ModelShape(**{**vars(LLAMA), "layers": 1}))
