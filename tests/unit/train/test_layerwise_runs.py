"""Whole runs whose step is inside the backward pass: killed, torn, stepped down. They take five steps and save once."""

import dataclasses

import pytest
import torch

from ondevice.errors import OndeviceError
from ondevice.model import safetensors
from ondevice.run.files import read_json
from ondevice.run.recipe import Fit
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.train import layerwise
from ondevice.train.clip import Norms
from ondevice.train.launch import launch
from ondevice.train.refit import _with_consent
from tests.displays import Crash, Silent

LAYERWISE = (
    "train.optimizer=adamw",
    "fit.layerwise=true",
    "eval.count=0",
    "sample.count=0",
    "eval.panel=0",
    "limits.save_every_steps=3",
    "train.steps=5",
    "train.batch=2",
    "model.width=16",
    "model.context=16",
)


def weights(run):
    with safetensors.open_file(Store(run.checkpoints).open(5).path / "model.safetensors") as file:
        return {name: file.tensor(name).clone() for name in file.names}


@pytest.fixture
def pair(make):
    """A run that went straight to its end, and one like it that was not started."""

    def build(clip):
        straight, other = (make(*LAYERWISE, f"train.clip={clip}", name=name) for name in ("straight", "other"))
        assert launch(straight, display=Silent()).outcome == "finished"
        return straight, other

    return build


# Groups of parameters a step: four, and one.
@pytest.mark.parametrize(("clip", "at"), [("0", 4 * 4 - 1), pytest.param("0.5", 4, marks=pytest.mark.slow)])
def test_a_kill_in_the_middle_of_a_step_loses_no_bit(pair, monkeypatch, clip, at):
    straight, killed = pair(clip)
    used, plain = [], layerwise.LayerwiseStep._use

    def die_while_writing(self, group):
        used.append(group)
        plain(self, group)
        if len(used) == at:
            raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(layerwise.LayerwiseStep, "_use", die_while_writing)
        with pytest.raises(Crash):
            launch(killed, display=Silent())
    assert Store(killed.checkpoints).steps() == [3]
    assert launch(killed, display=Silent()).outcome == "finished"
    mine, others = weights(killed), weights(straight)
    assert all(torch.equal(mine[name], others[name]) for name in mine)


def test_a_torn_step_leaves_the_run_at_its_last_checkpoint(pair, monkeypatch):
    straight, torn = pair("0")
    plain, asked = Norms.finite, []

    def finite(self, parameters):
        asked.append(len(asked))
        return plain(self, parameters) and len(asked) != 4 * 4 + 3  # four groups a step, in the fifth the third

    with monkeypatch.context() as patch:
        patch.setattr(Norms, "finite", finite)
        outcome = launch(torn, display=Silent())
    assert (outcome.outcome, outcome.step) == ("failed", 3)
    assert "stands at its last checkpoint, step 3" in outcome.why and "at step 5" in outcome.why
    assert Store(torn.checkpoints).steps() == [3]
    notes = [record for record in read_records(torn.telemetry) if record.get("restored_step") is not None]
    assert [note["restored_step"] for note in notes] == [3]
    assert launch(torn, display=Silent()).outcome == "finished"
    mine, others = weights(torn), weights(straight)
    assert all(torch.equal(mine[name], others[name]) for name in mine)


def test_whatever_breaks_a_half_written_step_saves_nothing(make, monkeypatch):
    run = make(*LAYERWISE, "train.clip=0", name="broken")
    with monkeypatch.context() as patch:

        def fail(self, *, piece=False):
            if piece and self.engine.torn and self.state.step == 4:
                raise OndeviceError("the disk went away")
            return 0.0

        patch.setattr("ondevice.train.loop.Loop._safe_point", fail)
        outcome = launch(run, display=Silent())
    assert outcome.outcome == "failed" and "the disk went away" in outcome.why
    assert outcome.step == max(Store(run.checkpoints).steps(), default=0) == 3


def test_the_child_run_that_would_fit_is_named(make):
    large = make("train.optimizer=adamw", name="large")
    recipe, fit = large.read_recipe(), make("train.optimizer=adamw", name="other")
    said = _with_consent(large, recipe, _fit(fit))
    assert "`ondevice fork large --set train.optimizer_state=int8`" in said
    said = _with_consent(large, _with(recipe, "adamw-int8"), _fit(fit))
    assert "`ondevice fork large --set train.weights=bf16`" in said
    assert "smaller model" in _with_consent(large, _with(recipe, "adamw-bf16-int8"), _fit(fit))


def _with(recipe, optimizer_state):
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, optimizer_state=optimizer_state))


def _fit(run):
    return Fit.from_json(read_json(run.fit), where="fit.json")
