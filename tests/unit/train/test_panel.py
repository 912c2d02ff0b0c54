"""Texts and advice at evaluations: told once, paid by the plan, without a trace in what is learned."""

from __future__ import annotations

import dataclasses

import pytest

from ondevice.run.liveness import read_status
from ondevice.run.schema import Config, EvalConfig
from ondevice.run.store import Store, remove_checkpoint
from ondevice.run.telemetry import read_records
from ondevice.train import plan
from ondevice.train.launch import launch
from ondevice.train.plan import _panel, panel_cost
from tests.displays import Silent


def evals(run):
    return [record for record in read_records(run.telemetry) if record["kind"] == "eval"]


def weights(run):
    checkpoint, _ = Store(run.checkpoints).latest(complete=True)
    return (checkpoint.path / "model.safetensors").read_bytes().partition(b"}")[2][-4000:]


def test_texts_are_told_and_change_nothing_that_is_learned(make):
    plain = make("train.steps=6", "eval.panel=0", "sample.count=0", name="plain")
    watched = make("train.steps=6", "eval.panel=3", "eval.panel_tokens=8", "sample.count=0", name="watched")
    for run in (plain, watched):
        assert launch(run, display=Silent()).outcome == "finished"
    assert weights(plain) == weights(watched)
    assert all("panel" not in record for record in evals(plain))
    for record in evals(watched):
        assert len(record["generations"]) == 3 and record["panel"]["n"] == 3
        assert 0 <= record["panel"]["repeated_4gram_ratio"] <= 1 and record["panel_s"] >= 0
        probes = record["probes"]
        assert probes["n"] == 3 and 1 <= probes["median_rank"] <= 257 and 0 < probes["mean_probability"] < 1
    assert evals(watched)[0]["probes"] != evals(watched)[-1]["probes"]
    assert [record["val_loss"] for record in evals(plain)] == [record["val_loss"] for record in evals(watched)]
    prompts = watched.read_recipe().eval.panel_prompts
    assert len(prompts) == 3 and all(prompts)


def test_unique_tokens_and_advice_stand_beside_the_losses(make):
    run = make("data.max_unique_tokens=128", "train.steps=9", "eval.count=4", "sample.count=0", name="capped")
    display = Silent()
    launch(run, display=display)
    records = list(read_records(run.telemetry))
    assert [record["unique_tokens"] for record in evals(run)] == [0, 128, 128, 128]
    advice = [record for record in records if record["kind"] == "advice"]
    assert [(each["what"], each["source"]) for each in advice] == [("repeats", "first"), ("repeats", "second")]
    assert all(each["text"] in display.said for each in advice)
    status = read_status(run)
    assert status["unique_tokens"] == 128 and len(status["advice"]) == 2 and status["most_epochs"] > 4
    assert status["epochs"] == evals(run)[-1]["epochs"] == pytest.approx(status["tokens"] / 128)


def test_a_begun_pass_counts_by_its_part(make):
    run = make("train.steps=3", "eval.count=2", "sample.count=0", name="begun")
    launch(run, display=Silent())
    told = [record["epochs"] for record in evals(run)]
    assert told[0] == 0.0 and 0.0 < told[-1] < 1.0 and read_status(run)["epochs"] == told[-1]


def test_a_launch_that_goes_on_tells_nothing_again(make):
    run = make("data.max_unique_tokens=128", "train.steps=9", "eval.count=4", "limits.save_every_steps=3", name="on")
    launch(run, display=Silent())
    first = [record for record in read_records(run.telemetry) if record["kind"] == "advice"]
    remove_checkpoint(run.checkpoints / "step-00000009")  # as if it had been killed before its last save
    again = Silent()
    launch(run, display=again)
    later = [record for record in read_records(run.telemetry) if record["kind"] == "advice"]
    assert len(first) == len(later) == 2 and not any("was read" in text for text in again.said)


SMALL, PUBLISHED = (3, 96, 3, 256), (4, 256, 8, 704)  # layers, width, heads, hidden


@pytest.mark.parametrize(
    ("size", "tokens", "texts"),
    [
        (SMALL, 10_000, 0),
        (SMALL, 800_000, 0),
        (PUBLISHED, 1_400_000, 0),
        (PUBLISHED, 2_400_000, 6),
        (PUBLISHED, 3_000_000, 8),
        (SMALL, 10**9, 8),
    ],
)
def test_the_plan_pays_for_texts_with_a_hundredth_of_the_training(size, tokens, texts, make):
    recipe = make("train.steps=2", name="t").read_recipe()
    layers, width, heads, hidden = size
    shape = dataclasses.replace(
        recipe.model, layers=layers, width=width, heads=heads, kv_heads=heads, hidden=hidden, vocab_size=4096
    )
    train = dataclasses.replace(recipe.train, tokens=tokens)
    count = _panel(Config(), shape, train)
    assert count == texts
    read = 21 * panel_cost(count, EvalConfig().panel_tokens, shape) if count else 0
    assert read / 3 <= plan.PANEL_SHARE * tokens
    assert plan.PANEL_SHARE + plan.LOSS_SHARE <= 0.05
    assert _panel(Config(eval=EvalConfig(panel=5)), shape, train) == 5
