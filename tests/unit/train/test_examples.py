"""Runs on examples: the step is the mean over answers, a killed run ends to the bit, and what a plan says of them."""

import dataclasses
import json

import pytest
import torch

from ondevice.data.chat import encode_chat, end_ids
from ondevice.data.cursor import BatchCursor
from ondevice.data.packed import IGNORE
from ondevice.data.tokenizer import load_tokenizer
from ondevice.evaluate.losses import Evaluation
from ondevice.model.build import build_model
from ondevice.run.config import parse_config
from ondevice.run.recipe import ModelShape
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train.engine import Engine, micro_batches
from ondevice.train.launch import launch
from ondevice.train.optimizer import optimizer_of
from ondevice.train.prepare import make_run, prepare
from ondevice.train.wish import make_dataset
from tests.displays import Crash, DiesAt, Silent

TINY = """
name = "tickets"
[data]
split = "hash:0.1"
[[data.sources]]
path = "rows.jsonl"
[tokenizer]
kind = "byte"
[model]
layers = 2
width = 32
heads = 4
kv_heads = 2
[train]
lr = 3e-3
precision = "fp32"
[eval]
count = 3
[sample]
count = 1
max_new_tokens = 6
[fit]
micro_batch = 2
threads = 1
[limits]
min_free_disk_mb = 0
save_every_steps = 4
"""


@pytest.fixture
def wish(tmp_path, monkeypatch):
    """``wish("train.epochs=1")`` -> config and dataset."""
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    rows = [
        {"instruction": "Count", "input": "ab"[i % 2] * (1 + i * 7 % 40), "output": str(1 + i * 7 % 40)}
        for i in range(80)
    ]
    rows = list({json.dumps(row): row for row in rows}.values())
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(*changes):
        config = parse_config(TINY, where="tiny.toml", base=tmp_path, changes=changes)
        return config, make_dataset(config)

    return make


def _prepared(config, dataset):
    return prepare(config, dataset, cores=1, android=False, rate=1000.0)


def _run(config, dataset, name="tickets"):
    config = dataclasses.replace(config, name=name)
    return make_run(config, _prepared(config, dataset), dataset)


SHAPE = ModelShape(
    arch="llama", vocab_size=257, context=96, layers=2, width=32, heads=4, kv_heads=2, hidden=48, tied=False
)


def _gradients(pieces, labels, *, model=None):
    model = model or build_model(SHAPE, seed=1)
    optimizer = optimizer_of("adamw-fp32", model, lr=1e-3, weight_decay=0.0, beta1=0.9, beta2=0.99, eps=1e-8)
    engine = Engine(model, optimizer, clip=0.0, precision="fp32", loss_chunk_tokens=16)
    engine.begin(labels)
    for piece in pieces:
        engine.accumulate(*piece)
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return engine.update(0.0), gradients


def test_a_step_is_the_mean_over_the_answers_of_the_whole_batch(wish):
    _, dataset = wish()
    cursor = BatchCursor(dataset, context=96, batch=5, order="shuffled", seed=3)
    batch = cursor.next()
    alone = []
    for x, y, lengths in zip(batch.x_BT, batch.y_BT, batch.lengths_B, strict=True):
        at = 0
        for length in lengths:
            alone.append((x[None, at : at + length].copy(), y[None, at : at + length].copy()))
            at += length
    want, wanted = _gradients(alone, batch.y_BT)
    assert want.tokens == int((batch.y_BT != IGNORE).sum()) and len(alone) > 5
    for rows in (1, 2, 5):
        got, gradients = _gradients(micro_batches(batch, rows), batch.y_BT)
        assert got.tokens == want.tokens and abs(got.loss - want.loss) < 1e-5
        for name, gradient in gradients.items():
            assert (gradient - wanted[name]).abs().max() < 1e-5, name


def test_validation_is_the_answers_of_held_out_examples(wish):
    _, dataset = wish()
    model = build_model(SHAPE, seed=1)
    found = Evaluation(model, dataset, max_tokens=0, batch=2, loss_chunk_tokens=64)
    for _ in found.batches():
        pass
    rows = dataset.example_rows("rows", "val")
    total, count = 0.0, 0
    for index in range(len(rows)):
        ids, learned = rows.read(index)
        with torch.no_grad():
            logits = model.logits(model(torch.from_numpy(ids[None, :-1])))[0]
        nats = torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids[1:]), reduction="none").numpy()
        total, count = total + float(nats[learned[1:]].sum()), count + int(learned[1:].sum())
    loss = found.losses["rows"]
    assert loss.tokens == count and abs(loss.nats - total / count) < 1e-5
    assert loss.bytes == count - len(rows)  # the ends stand for no bytes


def test_a_plan_counts_rows_and_warns(wish):
    config, dataset = wish()
    prepared = _prepared(config, dataset)
    recipe = prepared.recipe
    cursor = BatchCursor.of(dataset, recipe.data, context=recipe.model.context, batch=recipe.train.batch)
    assert recipe.train.steps == -(-3 * cursor.windows_per_epoch // recipe.train.batch)
    assert recipe.data.train_tokens == cursor.windows_per_epoch * recipe.model.context
    assert recipe.model.context % 32 == 0 and "3 passes" in recipe.why["train.epochs"]
    assert any("optimizer updates" in warning for warning in prepared.warnings)
    assert recipe.sample.prompts[0].startswith("Count\n\n")
    short = _prepared(*wish("model.context=48"))
    assert any("lose the beginning of their prompt" in warning for warning in short.warnings)
    dropping = _prepared(*wish("model.context=48", "data.too_long=drop"))
    assert any("are left out, because they are longer than 48" in warning for warning in dropping.warnings)


@pytest.mark.parametrize("change", ["train.epochs=1", pytest.param("chain.parts=2", marks=pytest.mark.slow)])
def test_a_killed_run_ends_to_the_bit(wish, change):
    changes = ("train.batch=2", "model.context=96", change)
    whole = _run(*wish(*changes), name="whole")
    launch(whole, display=Silent())
    killed = _run(*wish(*changes), name="killed")
    with pytest.raises(Crash):
        launch(killed, display=DiesAt(6))
    launch(killed, display=Silent())
    one, other = (Store(run.checkpoints).latest(complete=True)[0] for run in (whole, killed))
    assert one.step == other.step > 6
    names = ("model.safetensors", "optimizer.safetensors")
    assert all(one.files[name]["sha256"] == other.files[name]["sha256"] for name in names)
    exposure = other.facts["exposure"]["rows"]
    assert exposure["examples"] > 0 and exposure["learned_tokens"] > 0
    records = [r for r in read_records(whole.telemetry) if r["kind"] == "step"]
    assert all(0 < record["learned_tokens"] < 2 * 96 for record in records)


def test_what_it_learned_in_is_known_wherever_it_goes(wish):
    config, dataset = wish("train.steps=1", "train.batch=2")
    run = _run(config, dataset)
    own = load_tokenizer(run.tokenizer)
    assert own.chat is not None
    asked = encode_chat([{"role": "user", "content": "Count\n\naaa"}], own)
    assert bytes(asked) == b"### User:\nCount\n\naaa\n\n### Assistant:\n" and end_ids(own) == {256}
    again = make_dataset(config)
    assert again.id == dataset.id
