"""``ondevice plan``: everything a run would take, and warnings about plans that disappoint."""

from __future__ import annotations

import re

import pytest

from ondevice.device.readings import Reading
from ondevice.train.measure import Measured, Probed
from ondevice.train.memory import estimate_run


def test_plan_json_has_the_whole_decision(place, call):
    plan = call("plan", "tiny.toml", "--rate", 1000, "--json").json
    assert plan["recipe"]["train"]["steps"] == 12
    assert plan["recipe"]["model"]["vocab_size"] == 257
    assert plan["fit"] == {**plan["fit"], "micro_batch": 4, "threads": 1}
    expected = plan["estimate"]
    assert expected["tokens"] == 12 * 4 * 32
    assert expected["train_s"] == pytest.approx(12 * 4 * 32 / 1000)
    assert expected["memory"]["total_mb"] > 100
    assert plan["tok_s"] == 1000
    saving = plan["saving"]
    assert 0 < saving["light_mb"] < saving["checkpoint_mb"] < 1 and 0 < saving["save_s"] < 60
    assert saving["interval_s"] >= 300 and saving["worst_loss_steps"] == 12
    assert saving["disk_mb"] > 4 * saving["checkpoint_mb"]
    assert not list((place / "home").glob(".ondevice-probe-*"))
    assert plan["inventory"]["context"] == 32
    assert plan["inventory"]["covered"] + plan["inventory"]["remainder"] == plan["inventory"]["tokens"]
    assert len(plan["warnings"]) == 1 and "Only 12 optimizer updates" in plan["warnings"][0]
    assert not (place / "home" / "runs").exists()


def test_plan_for_people_fits_a_small_screen_but_for_reasons(place, call):
    out = call("plan", "tiny.toml", "--rate", 1000).out
    assert "Model    llama, 0.0" in out
    assert "Steps    12 x 4 x 32 =" in out
    assert "Time     about 2s at 1,000 tokens/s" in out
    assert re.search(r"^Saving   0\.\d+ MB a checkpoint, about \d+\.\ds to write$", out, re.M)
    assert re.search(r"^         every 5m00s; a kill loses at most 5m\d\ds \(12 steps\)$", out, re.M)
    assert re.search(r"^Disk     up to \d.* MB: 3 newest, 2 kept for another reason,$", out, re.M)
    assert "Warning: Only 12 optimizer updates: fewer than 100" in out
    assert re.search(r"^  train\.steps: 12 steps as given$", out, re.M)


def test_a_measured_step_stands_beside_the_estimate(place, call, monkeypatch):
    seen = []

    def ask(recipe, fit, known, *, memory_mb, **_):
        found = Measured(estimated_mb=estimate_run(recipe, fit).total_mb, peak_mb=333.4, step_s=1.26)
        seen.append((recipe.train.steps, memory_mb))
        return Probed(fit=fit, measured=found, said=["A leaner fit is taken."])

    monkeypatch.setattr("ondevice.train.prepare.measured_fit", ask)
    assert call("plan", "tiny.toml", "--rate", 1000, "--json").json["measured"] is None
    told = call("plan", "tiny.toml", "--rate", 1000, "--probe", "--json").json
    assert told["measured"]["peak_mb"] == 333.4 and "A leaner fit is taken." in told["warnings"]
    assert told["measured"]["estimated_mb"] == pytest.approx(told["estimate"]["memory"]["total_mb"], abs=0.001)
    out = call("plan", "tiny.toml", "--rate", 1000, "--memory", 5000, "--set", "fit.probe=true").out
    assert "333 MB measured, 1.3s a step" in out and seen == [(12, pytest.approx(seen[0][1])), (12, 5000.0)]


def test_plan_times_steps_where_no_rate_is_given(place, call):
    assert call("plan", "tiny.toml", "--json").json["tok_s"] > 0


def test_many_epochs_are_warned_about(place, call):
    plan = call("plan", "tiny.toml", "--rate", 1000, "--set", "train.steps=2000", "--json").json
    assert plan["estimate"]["epochs"] > 4
    assert len(plan["warnings"]) == 1 and "is repeated" in plan["warnings"][0]


def test_a_good_plan_has_no_warning(place, call):
    assert call("plan", "tiny.toml", "--rate", 1000, "--set", "train.steps=120", "--json").json["warnings"] == []


def test_minutes_become_steps_by_the_rate(place, call):
    text = (place / "tiny.toml").read_text().replace("steps = 12\n", "")
    (place / "tiny.toml").write_text(text)
    plans = [
        call("plan", "tiny.toml", "--rate", rate, "--minutes", minutes, "--json").json["estimate"]["steps"]
        for rate, minutes in ((1000, 1), (2000, 1), (1000, 2))
    ]
    assert plans[0] > 100
    assert plans[1] == pytest.approx(2 * plans[0], abs=1) == pytest.approx(plans[2], abs=1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (["train.tokens=100"], "'train.tokens' and 'train.steps' say the same thing"),
        (["train.lr_min=1"], "'train.lr_min' 1 is above the peak 'train.lr' 0.003"),
        (["model.heads=5"], "heads"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(place, call, changes, says):
    result = call("plan", "tiny.toml", "--rate", 1000, *(word for change in changes for word in ("--set", change)))
    assert result.code == 2
    assert says in result.error


class Blind:
    """Sensors of a phone that shows nothing."""

    def __init__(self, folder):
        pass

    def read(self):
        return Reading(t=0.0)

    def settle(self, seconds):
        return self.read()

    def close(self):
        pass


def test_a_device_that_shows_no_heat_is_warned_about(place, call, monkeypatch):
    monkeypatch.setattr("ondevice.cli.foresight.Sensors", Blind)
    plan = call("plan", "tiny.toml", "--rate", 1000, "--set", "train.steps=120", "--json").json
    assert len(plan["warnings"]) == 1 and "No heat can be read" in plan["warnings"][0]
