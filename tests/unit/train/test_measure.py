"""One real step of a plan: alone in its process, and a leaner fit where it takes too much."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ondevice.errors import OndeviceError, ResourceError
from ondevice.run.config import parse_config
from ondevice.run.files import read_json
from ondevice.run.recipe import Fit, ModelShape
from ondevice.run.repair_papers import _candidates
from ondevice.train import measure as measuring
from ondevice.train import probe_step
from ondevice.train.fitting import fastest, ways
from ondevice.train.launch import launch
from ondevice.train.measure import Measured, is_worth_measuring, measure, measured_fit
from ondevice.train.memory import estimate_run
from tests.displays import Silent
from tests.tiny import TRAIN

WISH = '[train]\noptimizer = "adamw"\n[[data.sources]]\npath = "x.txt"\n'
SHAPE = ModelShape(arch="llama", vocab_size=300, context=512, layers=8, width=512, heads=8, kv_heads=8, hidden=1408)
RECIPE = SimpleNamespace(model=SHAPE, trained=SHAPE, train=TRAIN, adapter=None, base=None, to_json=dict)


@pytest.fixture(scope="module")
def known():
    """Every way of a model whose fits differ by hundreds of megabytes; nobody computes with it."""
    return ways(parse_config(WISH, where="x.toml", base=Path.cwd()), SHAPE, batch=8, threads=1)


def over(excess_mb):
    """Steps that take so much more than the arithmetic says."""

    def ask(recipe, fit):
        estimated_mb = estimate_run(recipe, fit).total_mb
        return Measured(estimated_mb=estimated_mb, peak_mb=estimated_mb + excess_mb, step_s=1.0)

    return ask


def test_a_child_tells_its_own_peak_and_no_weight_changes(make, home, monkeypatch):
    run, seen = make("train.optimizer=adamw", "fit.micro_batch=2"), []
    recipe, fit = run.read_recipe(), Fit.from_json(read_json(run.fit), where="x")
    random = torch.get_rng_state()
    if sys.platform.startswith("linux"):  # peak memory is read from /proc
        found = measure(recipe, fit)
        assert 100 < found.peak_mb < 600 and found.step_s > 0
        assert found.estimated_mb == estimate_run(recipe, fit).total_mb
    assert torch.equal(random, torch.get_rng_state())
    assert not list(home.glob(".ondevice-*"))
    real = probe_step.make_state

    def watched(*arguments, **how):
        seen[:] = [real(*arguments, **how)]
        seen.append({name: p.detach().clone() for name, p in seen[0].model.named_parameters()})
        return seen[0]

    monkeypatch.setattr(probe_step, "make_state", watched)
    for each in (fit, dataclasses.replace(fit, layerwise=True)):
        assert probe_step.measure_step(recipe, each)["step_s"] > 0
        state, before = seen
        assert len(state.optimizer.state) == len(before)
        assert all(torch.equal(p, before[name]) for name, p in state.model.named_parameters())


def test_a_fit_that_a_step_shows_to_fit_is_kept(known):
    fit = fastest(known, math.inf).fit
    probed = measured_fit(RECIPE, fit, known, memory_mb=9000.0, ask=over(5.0))
    assert probed.fit == fit and probed.said == [] and probed.measured.peak_mb < 9000


def test_too_much_takes_the_next_leaner_fit_and_says_so(known):
    plain = fastest(known, math.inf)
    limit_mb = plain.memory.total_mb + 1.0
    probed = measured_fit(RECIPE, plain.fit, known, memory_mb=limit_mb, ask=over(2.0))
    assert probed.measured.peak_mb <= limit_mb and probed.fit != plain.fit
    assert probed.measured.estimated_mb < plain.memory.total_mb
    assert len(probed.said) == 1 and "a leaner fit is taken" in probed.said[0]
    assert probed.fit == fastest(known, limit_mb - 2.0).fit


def test_a_step_that_memory_killed_is_followed_by_a_leaner_one(known):
    plain, asked = fastest(known, math.inf), []

    def ask(recipe, fit):
        asked.append(estimate_run(recipe, fit).total_mb)
        return Measured(estimated_mb=asked[-1], peak_mb=math.inf if len(asked) == 1 else asked[-1], step_s=1.0)

    probed = measured_fit(RECIPE, plain.fit, known, memory_mb=9000.0, ask=ask)
    assert asked[1] <= 0.9 * asked[0] and len(asked) == 2
    assert probed.measured.peak_mb == asked[1] and "killed for want of memory" in probed.said[0]


def test_nothing_that_fits_is_refused_with_the_figure(known):
    with pytest.raises(ResourceError, match=r"A real step took [\d,]+ MB where 300 MB may be used"):
        measured_fit(RECIPE, known[0].fit, known, memory_mb=300.0, ask=over(500.0))


def test_where_nothing_can_be_measured_arithmetic_holds(known):
    def ask(recipe, fit):
        raise OndeviceError("no such program.")

    probed = measured_fit(RECIPE, known[0].fit, known, memory_mb=1000.0, ask=ask)
    assert (
        probed.fit == known[0].fit
        and probed.measured is None
        and "No step could be measured: no such" in probed.said[0]
    )


@pytest.mark.parametrize(
    ("error", "killed"),
    [("x failed: killed by SIGKILL", True), ("x failed: exit code 12", True), ("x failed: exit code 1", False)],
)
def test_what_a_dead_child_died_of(home, known, monkeypatch, error, killed):
    def ask(*_, **__):
        raise ChildProcessError(error)

    monkeypatch.setattr(measuring, "ask_command", ask)
    if killed:
        assert measure(RECIPE, known[0].fit).peak_mb == math.inf
    else:
        with pytest.raises(OndeviceError, match="exit code 1"):
            measure(RECIPE, known[0].fit)


def test_when_a_step_is_measured(known, tmp_path):
    said = [parse_config(WISH, where="x", base=tmp_path, changes=[f"fit.probe={word}"]) for word in ("true", "false")]
    assert [is_worth_measuring(config, RECIPE, known[0].fit, 1e6) for config in said] == [True, False]
    silent = parse_config(WISH, where="x", base=tmp_path, changes=["budget.memory_mb=300"])
    tuned = SimpleNamespace(**{**vars(RECIPE), "base": object()})
    asked = [(RECIPE, 300.0), (tuned, 1e6), (tuned, 300.0)]
    assert [is_worth_measuring(silent, recipe, known[0].fit, limit_mb) for recipe, limit_mb in asked] == [
        False,  # no fine-tune
        False,  # far from the budget
        True,
    ]


def test_what_was_measured_is_kept_and_can_be_repaired(make, monkeypatch, tmp_path, capsys):
    told = Measured(estimated_mb=250.0, peak_mb=260.5, step_s=0.25)
    probed = "ondevice.train.prepare.measured_fit"
    monkeypatch.setattr(probed, lambda recipe, fit, *_, **__: measuring.Probed(fit=fit, measured=told))
    run = make("train.steps=1", "eval.count=0", "sample.count=0", "fit.probe=true")
    assert read_json(run.fit)["measured"] == {"estimated_mb": 250.0, "peak_mb": 260.5, "step_s": 0.25}
    assert launch(run, display=Silent()).outcome == "finished"
    assert run.fit.read_bytes() in [data for data, _ in _candidates(run, "fit.json")]
    asked = tmp_path / "asked.json"
    recipe, fit = run.read_recipe(), Fit.from_json(read_json(run.fit), where="x").to_json()
    gone = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, dataset="gone"))
    asked.write_text(json.dumps({"recipe": gone.to_json(), "fit": fit}))
    assert probe_step.main(str(asked)) == 0
    assert "the dataset of this run is not here" in json.loads(capsys.readouterr().out)["error"]

    def broken(*_, **__):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(probe_step, "make_state", broken)
    asked.write_text(json.dumps({"recipe": recipe.to_json(), "fit": fit}))
    assert probe_step.main(str(asked)) == probe_step.OUT_OF_MEMORY
