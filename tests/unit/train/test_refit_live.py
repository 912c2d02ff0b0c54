"""Fits that change while a run goes on: after a save, told, exact from there on, and never where it is forbidden."""

from __future__ import annotations

import dataclasses
import time

import pytest
import torch

from ondevice.device.battery import NO_BATTERY
from ondevice.device.readings import Reading
from ondevice.governor.threads import Wish
from ondevice.model import safetensors
from ondevice.run.liveness import read_status
from ondevice.run.recipe import Fit
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train import compiler, refit_live
from ondevice.train.launch import launch, make_loop
from ondevice.train.pacer import Pacer
from ondevice.train.race import Timing
from ondevice.train.replay import replay
from ondevice.train.told_fits import fits_by_step
from tests.displays import Crash, DiesAt, Silent

FEWER = Wish(kind="fewer", threads=1, why="it is hot")
SMALLER = Wish(kind="smaller", why="memory runs out")
SHORTER = Wish(kind="shorter", parts=3, why="a piece warms it too much")
RETUNE = Wish(kind="retune", why="steps are slow")
QUIET = ("train.steps=12", "limits.save_every_s=10000", "eval.count=0", "sample.count=0")


@pytest.fixture(autouse=True)
def everything_is_worth_it(monkeypatch):
    monkeypatch.setattr(refit_live, "WORTH_MB", 0.0)
    monkeypatch.setattr("ondevice.train.pulse.STATUS_EVERY_S", 0.0)


@pytest.fixture
def wishes(monkeypatch):
    """``wishes({step: wish})``: what the governor would like from that step on, until it was carried out."""

    def plan(wanted, run_steps):
        due = dict(wanted)

        def wish(pacer):
            first = min(due, default=None)
            return due[first] if first is not None and run_steps() >= first else None

        def refitted(pacer, wish, *, threads, micro_batch=None):
            due.pop(min(due))

        monkeypatch.setattr(Pacer, "wish", wish)
        monkeypatch.setattr(Pacer, "refitted", refitted)

    return plan


def train(run, wishes, wanted, display=None, **how):
    """A launch in which the governor wishes for changes."""
    loop = make_loop(run, display=display or Silent(), **how)
    wishes(wanted, lambda: loop.state.step)
    try:
        outcome = loop.run_to_end()
    finally:
        loop.telemetry.close()
    return loop, outcome


def records(run, kind):
    return [record for record in read_records(run.telemetry) if record["kind"] == kind]


def bits(run, step=12):
    folder = Store(run.checkpoints).open(step).path
    return [(folder / f"{name}.safetensors").read_bytes() for name in ("model", "optimizer")]


def weights(run, step=12):
    with safetensors.open_file(Store(run.checkpoints).open(step).path / "model.safetensors") as file:
        return {name: file.tensor(name).clone() for name in file.names}


def test_a_change_is_saved_before_told_and_in_force(make, wishes):
    run = make("fit.threads=2", *QUIET, name="fewer")
    loop, outcome = train(run, wishes, {5: FEWER})
    assert outcome.outcome == "finished"
    kinds = [(r["kind"], r["step"]) for r in read_records(run.telemetry) if r["kind"] in ("checkpoint", "fit")]
    assert kinds == [("checkpoint", 5), ("fit", 5), ("checkpoint", 12)]
    (told,) = records(run, "fit")
    assert (told["old"]["threads"], told["new"]["threads"], told["exact_from"]) == (2, 1, 5)
    assert told["why"] == "it is hot"
    store = Store(run.checkpoints)
    assert [store.open(step).facts["fit"]["threads"] for step in (5, 12)] == [2, 1]
    assert store.open(12).facts["threads"] == 1 == torch.get_num_threads()
    assert read_status(run)["fit"]["threads"] == 1
    assert loop.fit == loop.refitter.fit == loop.origin.fit


def test_compiling_is_told_before_it_begins_also_for_a_changed_fit(make, wishes, monkeypatch):
    display, heard = Silent(), []

    def compiled_pass():
        heard.append(display.said[-1])
        return compiler._through

    monkeypatch.setattr(compiler, "no_compiler", lambda: "")
    monkeypatch.setattr(compiler, "_compiled_pass", compiled_pass)
    monkeypatch.setattr(compiler.Compiler, "_go_through", lambda self, rows, *, again: None)
    run = make("fit.threads=2", "train.compile=true", *QUIET, name="compiled")
    train(run, wishes, {5: FEWER}, display)
    assert heard == [
        "Compiling the model's blocks: a minute or so at a first launch, less at later ones ...",
        "Compiling the model's blocks for the changed fit: a minute or so ...",
    ]


@pytest.mark.parametrize(("change", "dropout"), [({5: FEWER}, 0.1), ({5: SMALLER, 7: FEWER, 9: SMALLER}, 0.0)])
def test_a_kill_after_the_change_loses_no_bit(make, wishes, change, dropout):
    settings = ("fit.threads=2", f"model.dropout={dropout}", *QUIET)
    straight, killed = make(*settings, name="straight"), make(*settings, name="killed")
    train(straight, wishes, change)
    with pytest.raises(Crash):
        train(killed, wishes, change, DiesAt(11))
    display = Silent()
    train(killed, wishes, {}, display)
    last = records(killed, "launch")[-1]
    assert last["resumed_step"] == max(change) and last["inexact"] == []
    assert bits(killed) == bits(straight)
    assert fits_by_step(killed) == fits_by_step(straight)


def test_memory_steps_down_the_ladder_and_the_model_stays_the_same(make, wishes):
    straight, short = make(*QUIET, name="straight"), make(*QUIET, name="short")
    train(straight, wishes, {})
    train(short, wishes, {5: SMALLER, 6: SMALLER})
    assert [record["new"]["micro_batch"] for record in records(short, "fit")] == [2, 1]
    mine, others = weights(short), weights(straight)
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-3, atol=1e-4)


def test_pieces_that_are_too_long_for_the_heat_are_cut_and_the_model_stays_the_same(make, wishes):
    straight, run = make(*QUIET, name="straight"), make(*QUIET, name="cut")
    train(straight, wishes, {})
    train(run, wishes, {5: SHORTER})
    (told,) = records(run, "fit")
    assert (told["old"]["micro_batch"], told["new"]["micro_batch"], told["why"]) == (4, 1, SHORTER.why)
    mine, others = weights(run), weights(straight)
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("rows", "parts", "left"), [(8, 2, 4), (8, 3, 2), (6, 2, 3), (5, 4, 1), (2, 20, 1), (1, 4, 1)])
def test_a_micro_batch_is_halved_until_it_is_short_enough(rows, parts, left):
    fit = Fit(micro_batch=rows, threads=2, activation_checkpointing=False, loss_chunk_tokens=64)
    assert refit_live.shorter(fit, parts).micro_batch == left


def test_a_fixed_fit_stays_and_that_is_said_once(make, wishes, monkeypatch):
    straight, run = make(*QUIET, name="straight"), make(*QUIET, "limits.fixed_fit=true", name="fixed")
    train(straight, wishes, {})
    display = Silent()
    train(run, wishes, {3: FEWER}, display)  # never carried out, so it is wished for at every step
    assert [text for text in display.said if "limits.fixed_fit" in text] == [
        "The fit stays as it is because limits.fixed_fit is set, though it is hot."
    ]
    assert records(run, "fit") == [] and len(records(run, "checkpoint")) == 1
    assert bits(run) == bits(straight)


def test_nothing_to_gain_is_said_and_changes_nothing(make, wishes, monkeypatch):
    monkeypatch.setattr(refit_live, "WORTH_MB", 1e6)
    run, display = make(*QUIET, name="none"), Silent()
    train(run, wishes, {3: SMALLER, 5: SMALLER}, display)
    assert records(run, "fit") == []
    assert sum("no smaller fit would give back enough" in text for text in display.said) == 1


def test_threads_are_timed_again_without_a_trace_in_what_is_learned(make, wishes, monkeypatch):
    settings = ("fit.threads=2", "model.dropout=0.1", *QUIET)
    straight, run = make(*settings, name="straight"), make(*settings, name="timed")
    train(straight, wishes, {})
    real, seen = refit_live.time_gradients, []

    def equal(engine, shape, *, rows):
        timing = real(engine, shape, rows=rows)
        seen.append(torch.get_num_threads())
        return dataclasses.replace(timing, rate=100.0)

    monkeypatch.setattr(refit_live, "time_gradients", equal)
    monkeypatch.setattr(refit_live.os, "cpu_count", lambda: 2)
    display = Silent()
    train(run, wishes, {5: RETUNE}, display)
    assert set(seen) == {1, 2} and records(run, "fit") == []
    assert any("2 stay" in text for text in display.said)
    assert bits(run) == bits(straight)


def test_clearly_faster_threads_are_taken(make, wishes, monkeypatch):
    def time_gradients(engine, shape, *, rows):
        return Timing(rate={1: 200.0, 2: 100.0}[torch.get_num_threads()], seconds=0.05)

    monkeypatch.setattr(refit_live, "time_gradients", time_gradients)
    monkeypatch.setattr(refit_live.os, "cpu_count", lambda: 2)
    run = make("fit.threads=2", *QUIET, name="faster")
    train(run, wishes, {5: RETUNE})
    (told,) = records(run, "fit")
    assert (told["new"]["threads"], told["why"]) == (1, "steps are slow")


def test_a_replay_changes_the_fit_where_the_run_did(make, wishes):
    run = make("fit.threads=2", *QUIET, "limits.keep_last=2", name="replayed")
    train(run, wishes, {5: FEWER, 9: SMALLER})
    assert replay(run).identical  # from the change on
    store = Store(run.checkpoints)
    assert store.complete_steps() == [9, 12]


def test_a_replay_across_a_change(make, wishes):
    run = make("fit.threads=2", *QUIET, name="across")
    train(run, wishes, {5: FEWER, 9: SMALLER, 10: SMALLER})
    path = Store(run.checkpoints).path(10) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])  # so that it begins before the last change
    assert Store(run.checkpoints).complete_steps() == [9, 12]
    found = replay(run)
    assert (found.first, found.last, found.differences) == (9, 12, [])


def test_what_heat_took_is_known_to_the_next_launch(make):
    run = make("fit.threads=2", *QUIET, name="later")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pacer, "wish", lambda pacer: {5: FEWER}.get(loop.state.step))
        loop = make_loop(run, display=DiesAt(9))
        with pytest.raises(Crash):
            loop.run_to_end()
    loop.telemetry.close()
    assert records(run, "fit")[0]["full_threads"] == 2
    launch(run, display=Silent())
    last = records(run, "launch")[-1]
    assert (last["fit"]["threads"], last["full_threads"]) == (1, 2)


class LittleMemory:
    """Sensors of a laptop on the mains with 100 of 4000 MB free."""

    def __init__(self, folder):
        self.unknown = {"battery_percent": NO_BATTERY}

    def read(self):
        return Reading(t=time.time(), rss_mb=300.0, available_mb=100.0, total_mb=4000.0, disk_free_mb=9000.0)


def test_little_memory_saves_at_once_and_shrinks_once(make, monkeypatch):
    monkeypatch.setattr("ondevice.train.launch.Sensors", LittleMemory)
    run, display = make(*QUIET, name="little"), Silent()
    assert launch(run, display=display).outcome == "finished"
    assert [record["step"] for record in records(run, "checkpoint")][:1] == [0]
    (told,) = records(run, "fit")  # the next one not before what was given back can show
    assert (told["old"]["micro_batch"], told["new"]["micro_batch"], told["exact_from"]) == (4, 2, 0)
    assert told["why"] == "memory runs out"
    assert any("micro_batch: 4 -> 2" in text for text in display.said)
    assert read_status(run)["fit"]["micro_batch"] == 2
