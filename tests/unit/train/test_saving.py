"""What saving will take: the interval, the worst loss, and the room that retention asks for."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest

from ondevice.model.build import build_model
from ondevice.model.lora import add_lora
from ondevice.model.narrow import narrow
from ondevice.model.top_layers import freeze_below
from ondevice.run.recipe import AdapterRecipe, ModelShape
from ondevice.run.schema import Limits
from ondevice.train.engine import Engine
from ondevice.train.optimizer import optimizer_of
from ondevice.train.saving import plan_saving, save_interval_s
from ondevice.train.state import TrainState

SHAPE = ModelShape(
    arch="llama", vocab_size=300, context=32, layers=2, width=32, heads=2, kv_heads=1, hidden=64, dropout=0.0
)


def recipe(optimizer="adamw", steps=1000, top_layers=None, average=0.0, shape=SHAPE):
    sizes = {"batch": 4, "steps": steps, "planned_steps": steps, "top_layers": top_layers, "average": average}
    names = {"optimizer": optimizer.split("-")[0], "optimizer_state": optimizer}
    return SimpleNamespace(model=shape, trained=shape, train=SimpleNamespace(**names, **sizes), adapter=None)


@pytest.mark.parametrize(
    ("save_s", "every_s", "interval_s"),
    [(0.0, 300, 300), (1.0, 300, 300), (10.0, 300, 500), (60.0, 300, 1800), (60.0, 3600, 3600), (0.5, 10, 25)],
)
def test_the_interval_costs_two_percent_within_bounds(save_s, every_s, interval_s):
    assert save_interval_s(save_s, every_s) == pytest.approx(interval_s)


@pytest.mark.parametrize("top_layers", [None, 1])
@pytest.mark.parametrize("optimizer", ["adamw", "adamw-int8", "adamw-bf16", "adamw-bf16-int8", "muon"])
def test_the_size_is_that_of_the_tensors_that_are_saved(optimizer, top_layers):
    import numpy as np

    from ondevice.train.checkpoint import tensor_bytes

    # Optimizers with states of 8 bits keep those of matrices as small as SHAPE's in fp32.
    shape = dataclasses.replace(SHAPE, width=128, hidden=256) if optimizer.endswith("int8") else SHAPE
    model = build_model(shape, seed=1)
    if top_layers is not None:
        freeze_below(model, top_layers)
    if optimizer.startswith("adamw-bf16"):
        narrow(model)
    made = optimizer_of(optimizer, model, lr=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.99, eps=1e-8)
    engine = Engine(model, made, clip=1.0, precision="fp32", loss_chunk_tokens=64)
    ids = np.ones((2, 32), np.int64)
    engine.begin(ids)
    engine.accumulate(ids, ids)
    engine.update(1e-3)
    plan = plan_saving(recipe(optimizer, top_layers=top_layers, shape=shape), Limits(), save_mb_s=None, tok_s=None)
    state = TrainState(model=model, optimizer=made, cursor=None)
    assert plan.checkpoint_mb * 2**20 == pytest.approx(tensor_bytes(state), rel=0.01)
    assert plan.light_mb * 2**20 == pytest.approx(
        sum(p.numel() * p.element_size() for p in model.parameters()), rel=0.01
    )


def test_of_an_adapter_run_the_adapter_alone_is_saved():
    adapter = AdapterRecipe(rank=4, alpha=8.0, dropout=0.0, targets=("q_proj", "down_proj"), base_format="nf4")
    model = build_model(SHAPE, seed=1)
    add_lora(model, adapter, seed=1)
    tuned = SimpleNamespace(model=SHAPE, trained=SHAPE, train=recipe().train, adapter=adapter)
    plan = plan_saving(tuned, Limits(), save_mb_s=None, tok_s=None)
    assert plan.light_mb * 2**20 == 4 * sum(p.numel() for p in model.parameters())
    assert plan.checkpoint_mb == 3 * plan.light_mb


def test_a_slow_disk_saves_less_often_and_says_what_a_kill_may_cost():
    limits = Limits(save_every_s=60.0)
    size_mb = plan_saving(recipe(), limits, save_mb_s=None, tok_s=None).checkpoint_mb
    plan = plan_saving(recipe(), limits, save_mb_s=size_mb / 10.0, tok_s=128.0)  # 10 s a save, 1 s a step
    assert plan.save_s == pytest.approx(10.0)
    assert plan.interval_s == pytest.approx(500.0)
    assert (plan.worst_loss_s, plan.worst_loss_steps) == (pytest.approx(511.0), 511)
    dense = dataclasses.replace(limits, save_every_steps=20)
    plan = plan_saving(recipe(), dense, save_mb_s=size_mb / 10.0, tok_s=128.0)
    assert (plan.worst_loss_s, plan.worst_loss_steps) == (pytest.approx(30.0), 30)


def test_a_short_run_cannot_lose_more_than_it_has():
    assert plan_saving(recipe(steps=7), Limits(), save_mb_s=100.0, tok_s=128.0).worst_loss_steps == 7


def test_what_was_not_timed_is_unknown():
    plan = plan_saving(recipe(), Limits(), save_mb_s=None, tok_s=None)
    assert (plan.save_s, plan.worst_loss_steps, plan.interval_s) == (None, None, 300.0)


def test_the_room_is_what_retention_keeps_and_one_being_written():
    limits = Limits(keep_last=3, keep_best=1, keep_best_quality=1, keep_every_steps=250, min_free_disk_mb=100.0)
    plan = plan_saving(recipe(), limits, save_mb_s=None, tok_s=None)
    assert (plan.complete, plan.others) == (3, 6)
    assert plan.disk_mb == pytest.approx(4 * plan.checkpoint_mb + 6 * plan.light_mb + 100.0)
    whole = plan_saving(recipe(), dataclasses.replace(limits, drop_old_optimizer=False), save_mb_s=None, tok_s=None)
    assert whole.disk_mb == pytest.approx(10 * plan.checkpoint_mb + 100.0)
