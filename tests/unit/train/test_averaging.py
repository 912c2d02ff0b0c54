"""Averaged weights: the formula, that training itself never sees them, and that resuming and forking keep both."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ondevice.data.parcel import open_dataset
from ondevice.errors import CheckpointError
from ondevice.evaluate.losses import Evaluation, mixed_loss
from ondevice.model import safetensors
from ondevice.model.build import build_model
from ondevice.model.weights import load_weights
from ondevice.run.recipe import Fit, ModelShape
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train.averaging import WeightAverage
from ondevice.train.begin import make_state
from ondevice.train.checkpoint import load_tensors
from ondevice.train.fork import ForkWish, fork_run, plan_fork
from ondevice.train.launch import launch
from ondevice.train.replay import replay
from tests.displays import Crash, Silent

SMALLEST = (
    'train.init="fan-in"',
    "model.layers=1",
    "model.width=16",
    "eval.max_tokens=64",
    "sample.count=0",
    "train.steps=12",
)
AVERAGED = (*SMALLEST, "train.average=0.25", "limits.save_every_steps=6", "eval.count=5")


class CrashAt(Silent):
    def say(self, text):
        if text.startswith("step 9:"):
            raise Crash
        super().say(text)


def trained(run):
    assert launch(run, display=Silent()).outcome == "finished"
    return run


def tensors(run, name, step=12):
    with safetensors.open_file(Store(run.checkpoints).open(step).path / f"{name}.safetensors") as file:
        return {key: file.tensor(key).clone() for key in file.names}


def live(run, step=12):
    found = tensors(run, "optimizer", step)
    return {name.removeprefix("live."): each for name, each in found.items() if name.startswith("live.")}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("share", "exponent"), [(1.0, 0), (0.5, 1), (0.25, 3)])
def test_the_average_weighs_steps_by_a_rising_power_of_their_number(share, exponent):
    torch.manual_seed(0)
    model, seen = nn.Linear(3, 2), []
    average = WeightAverage(model, share=share)
    for step in range(1, 9):
        with torch.no_grad():
            model.weight.normal_()
        seen.append(model.weight.detach().double().clone())
        average.add(step)
    weights = [math.prod(step + more for more in range(exponent)) for step in range(1, 9)]
    wanted = sum(weight * each for weight, each in zip(weights, seen, strict=True)) / sum(weights)
    assert torch.allclose(average.tensors["weight"].double(), wanted, atol=1e-6)


def test_the_weights_in_training_come_back_to_the_bit_whatever_happens():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, share=0.5)
    assert set(average.tensors) == {"weight"}, "what does not learn needs no average"
    shown, own = average.tensors["weight"].clone(), torch.full((2, 3), math.pi)
    with torch.no_grad():
        model.weight.copy_(own)
    with pytest.raises(KeyError), average.shown():
        assert torch.equal(model.weight, shown)
        raise KeyError
    assert torch.equal(model.weight, own) and torch.equal(average.tensors["weight"], shown)


def test_training_is_the_same_with_and_without(make):
    averaged, plain = trained(make(*AVERAGED, name="averaged")), trained(make(*SMALLEST, name="plain"))
    own = tensors(plain, "model")
    assert equal(live(averaged), own) and not live(plain)
    assert not any(torch.equal(each, own[name]) for name, each in tensors(averaged, "model").items())


def test_what_was_measured_is_what_was_saved(make):
    run = trained(make(*AVERAGED))
    recipe, checkpoint = run.read_recipe(), Store(run.checkpoints).open(12)
    fit, dataset = Fit.from_json(checkpoint.facts["fit"], where=""), open_dataset(recipe.data)
    model = make_state(recipe, dataset, fit, None).model
    load_weights(checkpoint.path / "model.safetensors", model)
    evaluation = Evaluation.of(model, dataset, recipe, fit)
    for _ in evaluation.batches():
        pass
    told = [record["val_loss_mixed"] for record in read_records(run.telemetry) if record["kind"] == "eval"]
    assert told[-1] == mixed_loss(evaluation.losses)


def test_a_killed_run_ends_with_the_same_bits_and_its_last_steps_replay(make):
    straight, killed = trained(make(*AVERAGED, name="straight")), make(*AVERAGED, name="killed")
    with pytest.raises(Crash):
        launch(killed, display=CrashAt())
    trained(killed)
    assert all(equal(tensors(straight, name), tensors(killed, name)) for name in ("model", "optimizer"))
    assert replay(straight).differences == []


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_fork_goes_on_from_the_weights_in_training(make, share):
    parent = trained(make(*AVERAGED, "limits.drop_old_optimizer=false"))
    wish = ForkWish(name="child", changes=[f"train.average={share}"])
    child = fork_run(plan_fork(parent, Store(parent.checkpoints).open(6), wish))
    assert equal(live(child, 6) or tensors(child, "model", 6), live(parent, 6))
    assert not share or equal(tensors(child, "model", 6), tensors(parent, "model", 6))


def test_live_weights_of_another_model_are_refused(make):
    run = trained(make(*AVERAGED))
    recipe, checkpoint = run.read_recipe(), Store(run.checkpoints).open(12)
    path = checkpoint.path / "optimizer.safetensors"
    kept = {name: each for name, each in tensors(run, "optimizer").items() if name != "live.norm.weight"}
    path.write_bytes(b"")
    safetensors.write(path, kept, {})
    fit, dataset = Fit.from_json(checkpoint.facts["fit"], where=""), open_dataset(recipe.data)
    state = make_state(recipe, dataset, fit, None)
    with pytest.raises(CheckpointError, match="its live weights are not this model's"):
        load_tensors(checkpoint, state.model, state.optimizer, state.average)


def test_a_plan_counts_the_copy():
    from ondevice.train.memory import estimate_memory

    shape = ModelShape(arch="llama", vocab_size=300, context=64, layers=2, width=64, heads=2, kv_heads=2, hidden=128)
    fit = Fit(micro_batch=2, threads=1, activation_checkpointing=False, loss_chunk_tokens=64)
    more_mb = estimate_memory(shape, fit, averaged=True).total_mb - estimate_memory(shape, fit).total_mb
    average = WeightAverage(build_model(shape, seed=1), share=0.1)
    assert more_mb * 2**20 == pytest.approx(sum(4 * each.numel() for each in average.tensors.values()))
