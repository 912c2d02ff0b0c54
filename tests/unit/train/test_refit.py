"""Fits that stay, and fits that shrink: after a death for want of memory, on a smaller device, when asked."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from ondevice.model import safetensors
from ondevice.run.directory import RunDir
from ondevice.run.liveness import read_status, write_status
from ondevice.run.postmortem import Death
from ondevice.run.recipe import Fit, ModelShape
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train.fitting import choose_fit
from ondevice.train.launch import launch, make_loop
from ondevice.train.memory import estimate_memory, estimate_run
from ondevice.train.race import Timing
from ondevice.train.refit import Device, decide, smaller
from tests.displays import Crash, Silent

ROOMY = Device(cores=8, total_mb=16_000.0, memory_mb=9_600.0, android=False)
SHAPE = ModelShape(
    arch="llama", vocab_size=8_000, context=256, layers=6, width=320, heads=10, kv_heads=10, hidden=864, dropout=0.0
)
WIDE = dataclasses.replace(SHAPE, width=1280, hidden=3456, heads=20, kv_heads=20)  # gradients weigh more
LARGE = Fit(micro_batch=16, threads=2, activation_checkpointing=False, loss_chunk_tokens=512)


def plan_of(optimizer="muon-adamw-fp32", *, shape=SHAPE, adapter=None, top_layers=None):
    """As much of a recipe as an estimate reads."""
    sizes = {"batch": 16, "clip": 1.0, "clip_scope": "all", "top_layers": top_layers, "average": 0.0}
    train = SimpleNamespace(optimizer_state=optimizer, compile=False, precision="fp32", **sizes)
    return SimpleNamespace(model=shape, trained=shape, train=train, adapter=adapter)


class CrashAfter(Silent):
    """Dies once the loop reached a step; the last sign of life says that memory was short."""

    def __init__(self, run, step, *, short=True):
        super().__init__()
        self._run, self._step, self._short = run, step, short

    def status(self, status):
        if status["step"] < self._step:
            return
        if self._short:
            signs = {**read_status(self._run), "mem_available_mb": 10.0, "mem_total_mb": 4_000.0}
            write_status(self._run, {key: value for key, value in signs.items() if key != "v"}, durable=False)
        raise Crash


def die(run, step, **how):
    """A launch that is killed at ``step``, after a checkpoint at step 8 if it got so far."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ondevice.train.pulse.STATUS_EVERY_S", 0.0)
        display = CrashAfter(run, step, **how)
        with pytest.raises(Crash):
            launch(run, display=display)
    return display


def records(run, kind):
    return [record for record in read_records(run.telemetry) if record["kind"] == kind]


def weights(run, step=24):
    with safetensors.open_file(Store(run.checkpoints).open(step).path / "model.safetensors") as file:
        return {name: file.tensor(name).clone() for name in file.names}


def death(cause="memory"):
    return Death(launch=1, cause=cause, why="", step=0, phase="step", t=None, evidence={})


def test_each_shrinking_needs_clearly_less_and_there_is_a_floor():
    fit, seen = LARGE, []
    while (less := smaller(fit, plan_of())) != fit:
        governed = [
            estimate_memory(SHAPE, each).total_mb - estimate_memory(SHAPE, FLOOR).total_mb for each in (fit, less)
        ]
        assert governed[1] <= 0.8 * governed[0]
        seen.append(less)
        fit = less
    assert [each.micro_batch for each in seen[:4]] == [8, 4, 2, 1]
    assert not seen[3].activation_checkpointing and seen[4].activation_checkpointing
    assert fit == FLOOR
    assert {each.threads for each in seen} == {2}


FLOOR = Fit(micro_batch=1, threads=2, activation_checkpointing=True, loss_chunk_tokens=64)


def test_a_limit_that_can_be_reached_is_reached_at_once():
    total_mb = estimate_run(plan_of(), dataclasses.replace(LARGE, micro_batch=2)).total_mb
    assert smaller(LARGE, plan_of(), limit_mb=total_mb + 1).micro_batch == 2
    assert smaller(LARGE, plan_of(), limit_mb=1.0).micro_batch == 8  # no fit gets there: one step down


def test_a_whole_model_by_adamw_steps_down_into_the_backward_pass():
    recipe, fit, seen = plan_of("adamw-int8", shape=WIDE), LARGE, []
    while (less := smaller(fit, recipe)) != fit:
        assert estimate_run(recipe, less).total_mb < estimate_run(recipe, fit).total_mb
        seen.append(less)
        fit = less
    assert [each.micro_batch for each in seen[:4]] == [8, 4, 2, 1]
    assert fit.layerwise and fit.repeated_blocks == WIDE.layers and not fit.kept_blocks


def test_a_death_for_memory_shrinks_the_next_fit_and_the_model_stays_the_same(make):
    straight, killed = (make("limits.save_every_steps=8", "eval.count=0", "sample.count=0", name=n) for n in "ab")
    launch(straight, display=Silent())
    die(killed, 11)
    display = Silent()
    assert launch(killed, display=display).outcome == "finished"
    first, second = records(killed, "launch")
    assert (first["previous"], first["inexact"]) == (None, [])
    assert second["previous"]["cause"] == "memory"
    assert (second["previous"]["step"], second["previous"]["steps_lost"]) == (11, 3)
    assert second["resumed_step"] == 8 and second["fit"]["micro_batch"] == 2
    assert "fit.micro_batch: 4 -> 2" in second["inexact"]
    (fit,) = records(killed, "fit")
    assert (fit["old"]["micro_batch"], fit["new"]["micro_batch"], fit["exact_from"]) == (4, 2, 8)
    assert "for want of memory" in fit["why"]
    assert "killed at step 11, probably for want of memory (10 of 4,000 MB were free" in display.said[0]
    assert "3 steps are done again" in display.said[0] and "micro_batch: 4 -> 2" in display.said[1]
    assert Store(killed.checkpoints).open(24).facts["fit"]["micro_batch"] == 2
    mine, others = weights(killed), weights(straight)
    assert any(not torch.equal(mine[name], others[name]) for name in mine)
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-3, atol=1e-4)


def test_any_other_death_keeps_the_fit_and_every_bit(make):
    straight, killed = (make("limits.save_every_steps=8", "eval.count=0", "sample.count=0", name=n) for n in "ab")
    launch(straight, display=Silent())
    die(killed, 11, short=False)
    launch(killed, display=Silent())
    assert records(killed, "fit") == []
    assert records(killed, "launch")[1]["previous"]["cause"] in ("unknown", "user")
    mine, others = weights(killed), weights(straight)
    assert all(torch.equal(mine[name], others[name]) for name in mine)


def test_deaths_before_any_checkpoint_shrink_again_and_the_floor_is_said(make):
    run = make("train.batch=8", "fit.micro_batch=8", "eval.count=0", "sample.count=0", "model.context=64", name="again")
    fits = []
    for _ in range(6):
        die(run, 1)
        fits.append(records(run, "launch")[-1]["fit"])
    assert Store(run.checkpoints).steps() == []
    assert [fit["micro_batch"] for fit in fits] == [8, 4, 2, 1, 1, 1]
    assert [fit["activation_checkpointing"] for fit in fits] == [False] * 4 + [True, True]
    display = Silent()
    assert launch(run, display=display).outcome == "finished"
    assert any("as small as it gets" in text for text in display.said)
    assert len(records(run, "fit")) == 4


def test_a_fixed_fit_stays_and_that_is_said(make):
    run = make("limits.fixed_fit=true", "eval.count=0", "sample.count=0", name="fixed")
    die(run, 3)
    display = Silent()
    launch(run, display=display)
    assert records(run, "fit") == [] and records(run, "launch")[1]["fit"]["micro_batch"] == 4
    assert any("limits.fixed_fit is set" in text for text in display.said)


def test_the_fit_of_the_checkpoint_counts_where_the_story_is_gone(make):
    run = make("limits.save_every_steps=8", "eval.count=0", "sample.count=0", name="gone")
    die(run, 11)
    die(run, 19)
    for path in run.telemetry.iterdir():
        path.unlink()
    checkpoint, _ = Store(run.checkpoints).latest()
    assert checkpoint is not None and checkpoint.step == 16
    decision = decide(run, run.read_recipe(), checkpoint, death=None, limits=Limits(), device=ROOMY)
    assert (decision.fit.micro_batch, decision.changes) == (2, [])


@pytest.mark.parametrize(
    ("device", "change", "says"),
    [
        (dataclasses.replace(ROOMY, cores=1), {"threads": 1}, "1 cores, fewer than 4 threads"),
        (
            dataclasses.replace(ROOMY, total_mb=1_000.0, memory_mb=1.0),
            {"micro_batch": 2},
            "the one before had 16,000",
        ),
        (dataclasses.replace(ROOMY, total_mb=15_900.0, memory_mb=251.0), {}, ""),
        (dataclasses.replace(ROOMY, total_mb=None, memory_mb=None), {}, ""),
        (ROOMY, {}, ""),
    ],
    ids=["fewer cores", "less memory", "the same memory", "unknown memory", "the same"],
)
def test_another_device(make, device, change, says):
    run = make("fit.threads=4", name="moved")
    writer_of_launch(run, memory_total_mb=16_000.0)
    decision = decide(run, run.read_recipe(), None, death=None, limits=Limits(), device=device)
    assert decision.fit == dataclasses.replace(decision.before, **change)
    assert says in decision.why and bool(decision.why) == bool(change)


def writer_of_launch(run: RunDir, **fields):
    from ondevice.run.telemetry import TelemetryWriter

    writer = TelemetryWriter(run.telemetry, 1)
    writer.write("launch", 0, **fields)
    writer.close()


def test_a_fit_chosen_anew_times_threads_and_follows_the_plan(make, monkeypatch):
    run = make("fit.micro_batch=4", name="asked")
    text = run.config.read_text().replace("micro_batch = 4", "micro_batch = 6").replace("threads = 1\n", "")
    run.config.write_text(text)
    timed = []

    class Timer:
        def __init__(self, shape, fit, *, optimizer, most_rows, adapter, top_layers):
            assert (fit.micro_batch, most_rows) == (6, 6)

        def time(self, fit, *, precision, rows, batch):
            timed.append(fit.threads)
            assert precision == "fp32"
            return Timing(rate={2: 50.0, 4: 20.0}.get(fit.threads, 10.0), seconds=0.01)

    monkeypatch.setattr("ondevice.train.autotune.StepTimer", Timer)
    monkeypatch.setattr("ondevice.train.autotune.RATE_S", 0.01)
    device = dataclasses.replace(ROOMY, cores=8)
    decision = decide(run, run.read_recipe(), None, death=None, limits=Limits(), device=device, asked=True)
    assert (decision.fit.micro_batch, decision.fit.threads) == (6, 2)
    assert set(timed) == {1, 2, 3, 4, 6, 8} and "timed to be fastest" in decision.why
    after_oom = decide(run, run.read_recipe(), None, death=death(), limits=Limits(), device=device)
    assert after_oom.fit.micro_batch == 2  # a death is no wish: half of what it was


def test_a_fit_chosen_anew_counts_the_precision_of_the_run(make, monkeypatch):
    run, counted = make("fit.micro_batch=4", name="lower"), []
    assert 'precision = "fp32"' in run.config.read_text()
    run.config.write_text(run.config.read_text().replace('precision = "fp32"', 'precision = "auto"'))
    recipe = run.read_recipe()
    recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, precision="bf16"))

    def chosen(config, *arguments, **how):
        counted.append(config.train.precision)
        return choose_fit(config, *arguments, **how)

    monkeypatch.setattr("ondevice.train.refit.choose_fit", chosen)
    decide(run, recipe, None, death=None, limits=Limits(), device=ROOMY, asked=True)
    assert counted == ["bf16"]


def test_asked_for_in_a_launch(make):
    run = make("eval.count=0", "sample.count=0", name="refit")
    display = Silent()
    loop = make_loop(run, display=display, refit=True)
    loop.telemetry.close()
    assert loop.fit.micro_batch == 4 and any("looked at again" in text for text in display.said)
    assert records(run, "fit") == []
