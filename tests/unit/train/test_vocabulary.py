"""Runs that train with the tokens that occur: the others cost nothing and come back as the base has them."""

from __future__ import annotations

import dataclasses
import random
import shutil

import numpy as np
import pytest
import torch

from ondevice.cli.main import main
from ondevice.data.tokenizer import load_tokenizer, train_tokenizer
from ondevice.data.tokenizer_files import save_tokenizer
from ondevice.errors import CheckpointError, DataError, UsageError
from ondevice.evaluate.losses import Evaluation
from ondevice.export.adapter import export_adapter
from ondevice.export.package import _write_model
from ondevice.export.package_check import _model
from ondevice.infer.open import load_decoder
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.base import build_for
from ondevice.model.build import build_model
from ondevice.model.lora import merge
from ondevice.model.loss import IGNORE
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.peft import load_adapter, open_peft
from ondevice.model.safetensors import open_file, write
from ondevice.model.vocabulary import Vocabulary
from ondevice.run.config import parse_config
from ondevice.run.files import read_json, write_json
from ondevice.run.recipe import Fit, ModelShape
from ondevice.run.repair_papers import mend_papers
from ondevice.run.schema import TokenizerConfig
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.run.vocabulary import read_kept
from ondevice.study.story import read_story
from ondevice.train.engine import Engine
from ondevice.train.launch import launch, make_loop
from ondevice.train.memory import estimate_run
from ondevice.train.optimizer import make_optimizer
from ondevice.train.replay import replay
from ondevice.train.samples import write_sample
from ondevice.train.vocabulary import check_vocabulary
from tests.displays import Silent
from tests.left import left_after
from tests.tiny import WORDS

ODD = "zzyx qqqq vvww hhkk jjxx bbzz"  # words that the base has tokens for and the text has not
COMMON = {"vocab_size": 310, "context": 64, "layers": 2, "width": 32, "heads": 4, "hidden": 48}
SHAPES = {
    "llama": ModelShape(arch="llama", kv_heads=2, qkv_bias=True, **COMMON),  # tied
    "gpt2": ModelShape(arch="gpt2", kv_heads=4, tied=False, **COMMON),
}
LORA = ("adapter.method=lora", "adapter.dropout=0.1", "train.lr=0.01")


@pytest.fixture
def bases(tmp_path):
    """Folders of random models whose tokenizer has merges that the text does not use, and rows for no text at all."""
    pytest.importorskip("tokenizers")
    words = " ".join(random.Random(1).choices([*WORDS, *ODD.split()], k=600))
    tokenizer = train_tokenizer(TokenizerConfig(kind="bpe"), [words], tmp_path / "scratch", vocab_size=300)
    folders = {}
    for arch, shape in SHAPES.items():
        folders[arch] = tmp_path / f"base-{arch}"
        save_tokenizer(tokenizer, folders[arch])
        state = build_model(shape, seed=77).state_dict()
        write(folders[arch] / "model.safetensors", to_hugging_face(shape, state), {"format": "pt"})
        write_json(folders[arch] / "config.json", hugging_face_config(shape))
    return folders


@pytest.fixture
def tuned(make, bases):
    """``tuned("train.steps=6", arch="gpt2", name="x")`` -> a run with a trimmed vocabulary."""

    def build(*changes, arch="llama", name="tuned", vocabulary="trimmed"):
        sizes = [f"model.base={bases[arch]}", "model.layers=2", "model.width=32", "model.heads=4"]
        few = ["train.steps=4", "train.batch=2", "fit.micro_batch=2", "train.optimizer=adamw", "sample.count=1"]
        how = [f"model.vocabulary={vocabulary}", "eval.count=2", "eval.max_tokens=64"]
        return make(*sizes, *few, *how, *changes, name=name)

    return build


def trained(run):
    assert launch(run, display=Silent()).outcome == "finished"
    return run


def saved(run, name="model", step=None):
    store = Store(run.checkpoints)
    checkpoint = store.open(step) if step is not None else store.latest()[0]
    with open_file(checkpoint.path / f"{name}.safetensors") as file:
        return {key: file.tensor(key).clone() for key in file.names}


def live(run):
    """The model as it trains, with the weights of the newest checkpoint."""
    loop = make_loop(run, display=Silent())
    loop.telemetry.close()
    return loop.state.model.eval()


def left_out(run):
    kept = read_kept(run, run.read_recipe())
    return np.setdiff1d(np.arange(310), kept)


def test_what_occurs_is_kept_with_special_tokens_and_bytes(tuned, bases):
    run = tuned()
    recipe, kept = run.read_recipe(), set(read_kept(run, run.read_recipe()))
    tokenizer = load_tokenizer(bases["llama"])
    assert {token for word in WORDS for token in tokenizer.encode(f" {word}")} <= kept
    assert {*tokenizer.special_ids.values(), *np.flatnonzero(tokenizer.byte_lengths() == 1)} <= kept
    odd = {token for word in ODD.split() for token in tokenizer.encode(f" {word}")} - set(range(257))
    assert odd and not {token for token in odd if len(tokenizer.decode([token])) > 2} & kept
    assert not kept & set(range(tokenizer.vocab_size, 310))
    assert recipe.vocabulary.kept == len(kept) and recipe.model.vocab_size == 310
    assert f"{len(kept)} of 310 tokens" in recipe.why["model.vocabulary"]
    assert "vocabulary.json" in run.read_identity()["papers"]


@pytest.mark.parametrize("arch", ["llama", "gpt2"])
def test_its_loss_and_gradients_are_those_of_the_whole_model_without_the_other_logits(tuned, arch):
    run = tuned(arch=arch)
    recipe = run.read_recipe()
    vocabulary = Vocabulary(read_kept(run, recipe), 310)
    whole = build_for(dataclasses.replace(recipe, vocabulary=None), fresh=True)
    small = build_for(recipe, fresh=True, to_learn=True, vocabulary=vocabulary)
    ids = np.random.default_rng(3).choice(vocabulary.kept, (2, 17))
    x, y = np.ascontiguousarray(ids[:, :-1]), ids[:, 1:].copy()
    y[0, :5] = IGNORE
    logits = whole.logits(whole(torch.from_numpy(x))).flatten(0, 1)
    logits[:, left_out(run)] = -torch.inf
    wanted = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y).flatten())
    wanted.backward()
    engine = Engine(small, make_optimizer(small, recipe.train), clip=0.0, precision="fp32", loss_chunk_tokens=8)
    engine.begin(y)
    engine.accumulate(vocabulary.rows(x), vocabulary.rows(y))
    assert engine.update(0.0).loss == pytest.approx(wanted.item(), abs=1e-5)
    theirs = dict(whole.named_parameters())
    for name, parameter in small.named_parameters():
        grad = theirs[name].grad
        rows = grad[vocabulary.kept] if name in ("embed.weight", "head.weight") else grad
        torch.testing.assert_close(parameter.grad, rows, rtol=0, atol=1e-5)
        assert len(rows) == len(grad) or not grad[left_out(run)].any()


def test_a_frozen_base_has_the_same_bits_in_fewer_rows(tuned):
    run = tuned(*LORA)
    recipe = run.read_recipe()
    vocabulary = Vocabulary(read_kept(run, recipe), 310)
    ids = np.random.default_rng(3).choice(vocabulary.kept, (2, 17))
    for form in ("fp32", "bf16", "int8", "nf4"):
        packed = dataclasses.replace(recipe, adapter=dataclasses.replace(recipe.adapter, base_format=form))
        whole = build_for(packed, fresh=True).eval()
        small = build_for(packed, fresh=True, to_learn=True, vocabulary=vocabulary).eval()
        some, every = TorchBackend(small).logits(ids), TorchBackend(whole).logits(ids)
        np.testing.assert_allclose(some[..., vocabulary.kept], every[..., vocabulary.kept], rtol=0, atol=1e-5)
        assert some.shape == every.shape and np.isneginf(some[..., left_out(run)]).all()
        assert small.head_weight.shape == (recipe.vocabulary.kept, 32)


@pytest.mark.parametrize(
    ("arch", "changes"),
    [
        ("llama", ("train.optimizer_state=int8", "train.weights=bf16")),
        ("gpt2", ("train.top_layers=1",)),
    ],
)
def test_the_whole_model_comes_back(tuned, tmp_path, arch, changes):
    run = trained(tuned("train.lr=0.01", *changes, arch=arch))
    base, own, small = build_model(SHAPES[arch], seed=77).state_dict(), saved(run), live(run)
    whole, vocabulary = load_decoder(run, Store(run.checkpoints).latest()[0]), small.vocabulary
    state = whole.state_dict()
    for name in {"embed.weight", "head.weight"} & set(state):
        assert torch.equal(state[name][left_out(run)], base[name][left_out(run)])
        assert torch.equal(state[name][vocabulary.kept], own[name].float())
        assert len(own[name]) == len(vocabulary.kept) < 310
    package = tmp_path / "package"
    (package / "run").mkdir(parents=True)
    shutil.copy(run.recipe, package / "run")
    _write_model(package, run, run.read_recipe(), Store(run.checkpoints).latest()[0])
    packed = _model(package, None).state_dict()
    assert all(torch.equal(packed[name], state[name]) for name in state)
    learned = "head.weight" if arch == "gpt2" else "blocks.1.mlp.down.weight"
    assert not torch.equal(state[learned], base[learned])
    ids = np.random.default_rng(3).choice(vocabulary.kept, (2, 17))
    some, every = TorchBackend(small).logits(ids), TorchBackend(whole).logits(ids)
    np.testing.assert_allclose(some[..., vocabulary.kept], every[..., vocabulary.kept], rtol=0, atol=1e-5)


def test_transformers_loads_what_is_exported(tuned, tmp_path):
    transformers = pytest.importorskip("transformers")
    run = trained(tuned("train.lr=0.01", arch="gpt2"))
    assert read_story(run).vocabulary == run.read_recipe().vocabulary is not None
    assert main(["export", str(run.path), "--out", str(tmp_path / "hf"), "--format", "hf"]) == 0
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    wanted = load_decoder(run, Store(run.checkpoints).latest()[0])
    ids = torch.arange(275, 305)[None]  # trained ones and others
    torch.testing.assert_close(theirs(ids).logits, wanted.logits(wanted(ids)), rtol=0, atol=1e-4)
    state = build_model(SHAPES["gpt2"], seed=77).state_dict()
    for name, here in (("transformer.wte.weight", "embed.weight"), ("lm_head.weight", "head.weight")):
        assert torch.equal(theirs.state_dict()[name][left_out(run)], state[here][left_out(run)])


def test_its_adapter_goes_beside_the_whole_base(tuned, tmp_path):
    run = trained(tuned(*LORA))
    recipe, small = run.read_recipe(), live(run)
    export_adapter(recipe, Store(run.checkpoints).latest()[0], tmp_path / "adapter")
    whole = build_for(dataclasses.replace(recipe, vocabulary=None), fresh=True).eval()
    load_adapter(whole, open_peft(tmp_path / "adapter", recipe.model))
    merge(whole)
    kept = small.vocabulary.kept
    ids = np.random.default_rng(3).choice(kept, (2, 17))
    some, every = TorchBackend(small).logits(ids), TorchBackend(whole).logits(ids)
    np.testing.assert_allclose(some[..., kept], every[..., kept], rtol=0, atol=1e-5)
    assert all(".lora_" in name for name in saved(run))


@pytest.mark.parametrize("changes", [LORA, ("train.optimizer_state=int8", "fit.layerwise=true", "train.average=0.5")])
def test_it_goes_on_bit_for_bit_and_is_replayed(tuned, changes):
    whole, cut = tuned(*changes, "train.steps=6"), tuned(*changes, "train.steps=6", name="cut")
    trained(whole)
    left_after(cut, 3)
    trained(cut)
    for name in ("model", "optimizer"):
        one, two = saved(whole, name), saved(cut, name)
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert replay(cut).identical


def test_its_losses_are_over_the_kept_tokens(tuned):
    run = trained(tuned("eval.panel=2"))
    told = [record for record in read_records(run.telemetry) if record["kind"] == "eval"]
    assert told[-1]["generations"] and told[-1]["probes"]["mean_probability"] > 0  # over the kept tokens as well
    small = live(run)
    recipe, loop = run.read_recipe(), make_loop(run, display=Silent())
    loop.telemetry.close()
    fit = Fit(micro_batch=2, threads=1, activation_checkpointing=False, loss_chunk_tokens=64)
    again = Evaluation.of(small, loop.dataset, recipe, fit)
    for _ in again.batches():
        pass
    assert again.record()["val_loss"] == pytest.approx(told[-1]["val_loss"], rel=1e-6)
    whole = Evaluation.of(load_decoder(run, Store(run.checkpoints).latest()[0]), loop.dataset, recipe, fit)
    for _ in whole.batches():
        pass
    assert all(whole.losses[name].nats > again.losses[name].nats for name in again.losses)


def test_it_writes_after_any_prompt(tuned):
    run = tuned()
    small, tokenizer = live(run), load_tokenizer(run.tokenizer)
    odd = f" {ODD.split()[0]} cat"
    assert not small.vocabulary.has(tokenizer.encode(odd)).all()
    text = write_sample(small, tokenizer, run.read_recipe().sample, odd)
    written = tokenizer.encode(text)
    assert written
    letters = [each for each in small.vocabulary.kept if tokenizer.decode_bytes([each]) != b"z"]
    small.vocabulary = Vocabulary(letters, 310)
    with pytest.raises(DataError, match="in no token that this run trains"):
        write_sample(small, tokenizer, run.read_recipe().sample, " zzyx")


def test_a_list_that_is_torn_is_said_and_found_elsewhere(tuned):
    run, other = tuned(), tuned(name="other")
    whole = run.vocabulary.read_bytes()
    for torn in (whole[: len(whole) // 2], whole.replace(b",5,", b",")):
        run.vocabulary.write_bytes(torn)
        with pytest.raises(DataError, match=r"vocabulary\.json: .*`ondevice doctor tuned` looks for it elsewhere"):
            launch(run, display=Silent())
    assert [said for _, said in mend_papers(run, False)] == [f"restored from {other.vocabulary}"]
    assert run.vocabulary.read_bytes() == whole
    trained(run)
    run.vocabulary.unlink()
    with pytest.raises(DataError, match=r"vocabulary\.json: no such file; `ondevice doctor"):
        load_decoder(run, Store(run.checkpoints).latest()[0])


def test_without_its_base_it_trains_on_and_cannot_be_made_whole(tuned, bases):
    run = tuned("train.steps=4")
    left_after(run, 2)
    shutil.rmtree(bases["llama"])
    trained(run)
    with pytest.raises(CheckpointError, match="is gone; put it back there, for the tokens that its trimmed vocabulary"):
        load_decoder(run, Store(run.checkpoints).latest()[0])


def test_what_cannot_be_trimmed_is_refused(tuned, make, tmp_path):
    with pytest.raises(UsageError, match=r"leaves out tokens that a base has learned.*name one with model\.base"):
        make("model.vocabulary=trimmed")
    with pytest.raises(UsageError, match=r"'model\.vocabulary' must be one of full, trimmed"):
        make("model.vocabulary=some")
    wish = parse_config(f'[model]\nbase = "{tmp_path}"\nvocabulary = "trimmed"\n', where="x.toml", base=tmp_path)
    with pytest.raises(UsageError, match=r"does not go with chain\.grow"):
        check_vocabulary(dataclasses.replace(wish, chain=dataclasses.replace(wish.chain, grow=True)))


def test_the_plan_counts_fewer_rows_and_says_what_they_spare(tuned):
    trimmed, full = tuned(), tuned(vocabulary="full", name="full")
    fit = Fit.from_json(read_json(trimmed.fit), where="fit.json")
    less, more = (estimate_run(run.read_recipe(), fit) for run in (trimmed, full))
    rows = 310 - trimmed.read_recipe().vocabulary.kept
    assert (more.weights_mb - less.weights_mb) * 2**20 == pytest.approx(rows * 32 * 4)
    assert (more.optimizer_mb - less.optimizer_mb) * 2**20 == pytest.approx(2 * rows * 32 * 4)
    assert "model.vocabulary" not in full.read_recipe().why  # less than a person would notice
