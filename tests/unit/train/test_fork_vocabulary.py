"""Forks keep their parent's tokens, train all of them again, or fewer; no row is lost on the way."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from ondevice.data.tokenizer import train_tokenizer
from ondevice.data.tokenizer_files import save_tokenizer
from ondevice.errors import CheckpointError, UsageError
from ondevice.infer.open import load_decoder
from ondevice.model.build import build_model
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.model.safetensors import open_file, write
from ondevice.run.files import write_json
from ondevice.run.papers import changed_papers
from ondevice.run.parcel import run_files
from ondevice.run.recipe import Fit, ModelShape
from ondevice.run.schema import SourceConfig, TokenizerConfig
from ondevice.run.store import Store
from ondevice.run.vocabulary import read_kept
from ondevice.study.average import average_run
from ondevice.train.fork import ForkWish, fork_run, plan_fork
from ondevice.train.launch import launch
from ondevice.train.refit import _with_consent
from tests.displays import Silent
from tests.tiny import WORDS

ODD = "zzyx qqqq vvww hhkk jjxx bbzz"  # words that the base has tokens for and the text has not
SHAPE = ModelShape(
    arch="gpt2", vocab_size=310, context=64, layers=2, width=32, heads=4, kv_heads=4, hidden=48, tied=False
)
LORA = ("adapter.method=lora", "train.lr=0.01")


@pytest.fixture
def parent(make, tmp_path):
    """``parent("model.vocabulary=trimmed")`` -> a run of three steps that is done."""
    pytest.importorskip("tokenizers")

    def build(*changes, name="parent"):
        folder = tmp_path / "base"
        words = " ".join(random.Random(1).choices([*WORDS, *ODD.split()], k=600))
        save_tokenizer(train_tokenizer(TokenizerConfig(kind="bpe"), [words], tmp_path / "s", vocab_size=300), folder)
        state = build_model(SHAPE, seed=77).state_dict()
        write(folder / "model.safetensors", to_hugging_face(SHAPE, state), {"format": "pt"})
        write_json(folder / "config.json", hugging_face_config(SHAPE))
        sizes = [f"model.base={folder}", "model.layers=2", "model.width=32", "model.heads=4", "sample.count=0"]
        few = ["train.steps=3", "train.batch=2", "fit.micro_batch=2", "eval.count=0", "train.optimizer=adamw"]
        run = make(*sizes, *few, "train.lr=0.01", *changes, name=name)
        assert launch(run, display=Silent()).outcome == "finished"
        return run

    return build


def forked(run, *changes, name="child", **wish):
    with Store(run.checkpoints).lease(3) as checkpoint:
        plan = plan_fork(run, checkpoint, ForkWish(name=name, steps=2, changes=changes, **wish))
        return fork_run(plan), plan


def finished(run):
    assert launch(run, display=Silent()).outcome == "finished"
    return run


def whole(run, step):
    return load_decoder(run, Store(run.checkpoints).open(step)).state_dict()


def tables(run, step):
    with open_file(Store(run.checkpoints).open(step).path / "model.safetensors") as file:
        return {name: file.shape(name)[0] for name in ("embed.weight", "head.weight") if name in file.names}


def middle(run, name):
    """Of the last two checkpoints."""
    found = []
    for step in (2, 3):
        with open_file(Store(run.checkpoints).open(step).path / "model.safetensors") as file:
            found.append(file.tensor(name).double())
    return ((found[0] + found[1]) / 2).float()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_fork_keeps_its_parents_tokens_or_trains_all_again(parent):
    run = parent("model.vocabulary=trimmed", "limits.save_every_steps=1")
    mean, kept = whole(average_run(run, [2, 3]), 3), read_kept(run, run.read_recipe())
    assert same(mean | {"head.weight": mean["head.weight"][kept]}, mean | {"head.weight": middle(run, "head.weight")})
    others = np.setdiff1d(np.arange(310), kept)
    assert torch.equal(mean["head.weight"][others], build_model(SHAPE, seed=77).state_dict()["head.weight"][others])
    child, plan = forked(run)
    assert plan.keeps_optimizer and child.read_recipe().vocabulary == run.read_recipe().vocabulary
    assert same(whole(child, 3), whole(run, 3))
    finished(child)
    child, plan = forked(run, "model.vocabulary=full", name="again")
    assert not plan.keeps_optimizer and any("All 310 tokens train again" in note for note in plan.notes)
    assert child.read_recipe().vocabulary is None and not child.vocabulary.exists()
    assert tables(child, 3) == {"embed.weight": 310, "head.weight": 310}
    assert same(whole(child, 3), whole(run, 3))
    finished(child)


def test_fewer_tokens_put_what_the_parent_learned_of_the_others_aside(parent, tmp_path):
    run = parent()
    before = whole(run, 3)
    child, plan = forked(run, "model.vocabulary=trimmed")
    recipe = child.read_recipe()
    assert recipe.vocabulary.put_aside and not plan.keeps_optimizer
    assert any("put aside as they are" in note for note in plan.notes)
    assert tables(child, 3) == dict.fromkeys(("embed.weight", "head.weight"), recipe.vocabulary.kept)
    assert same(whole(child, 3), before)
    (tmp_path / "base" / "config.json").unlink()  # of the base nothing is left
    after = whole(finished(child), 5)
    kept = read_kept(child, recipe)
    others = np.setdiff1d(np.arange(310), kept)
    for name in ("embed.weight", "head.weight"):
        assert torch.equal(after[name][others], before[name][others])
        assert not torch.equal(after[name][kept], before[name][kept])
    grandchild, _ = forked_at(child, 5)
    assert same(whole(grandchild, 5), after)
    assert {"run/vocabulary.json", "run/vocabulary.safetensors"} <= {name for name, *_ in run_files(child, [5])}
    data = bytearray(child.put_aside.read_bytes())
    data[-5] ^= 1
    child.put_aside.write_bytes(data)
    assert changed_papers(child, child.read_identity())
    with pytest.raises(CheckpointError, match=r"vocabulary\.safetensors: changed since the run was made.*restore it"):
        whole(child, 5)


def forked_at(run, step):
    with Store(run.checkpoints).lease(step) as checkpoint:
        plan = plan_fork(run, checkpoint, ForkWish(name="grandchild", steps=2))
        return fork_run(plan), plan


def test_an_adapter_goes_on_beside_fewer_rows_of_the_same_base(parent):
    run = parent(*LORA)
    child, plan = forked(run, "model.vocabulary=trimmed")
    assert plan.keeps_optimizer and not child.read_recipe().vocabulary.put_aside and not child.put_aside.exists()
    assert same(whole(child, 3), whole(run, 3))
    finished(child)


def test_text_with_other_tokens_is_refused(parent, tmp_path):
    run = parent("model.vocabulary=trimmed")
    (tmp_path / "odd.txt").write_text(f"{ODD}\n" * 400, "utf-8")
    (tmp_path / "plain.txt").write_text(f"{' '.join(WORDS[:6])}\n" * 400, "utf-8")
    for name in ("odd", "plain"):
        source = SourceConfig(path=str(tmp_path / f"{name}.txt"), name=name, document="line")
        if name == "odd":
            with pytest.raises(UsageError, match=r"tokens that the run left out.*model\.vocabulary=full"):
                forked(run, add_data=(source,))
        else:
            finished(forked(run, add_data=(source,))[0])


def test_without_memory_fewer_tokens_are_a_childs_to_train(parent, monkeypatch):
    fit = Fit(micro_batch=1, threads=1, activation_checkpointing=True, loss_chunk_tokens=16)
    run = parent(*LORA)
    assert "smaller model or context" in _with_consent(run, run.read_recipe(), fit)
    monkeypatch.setattr("ondevice.train.refit.WORTH_MB", 0.0)
    said = _with_consent(run, run.read_recipe(), fit)
    assert "only the 2" in said and "of 310" in said and "`ondevice fork parent --set model.vocabulary=trimmed`" in said
    child, _ = forked(run, "model.vocabulary=trimmed")
    assert "smaller model or context" in _with_consent(child, child.read_recipe(), fit)
