"""From a tiny study to a release that a clean process finds whole."""

from __future__ import annotations

import json
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

from ondevice.cli.main import main
from ondevice.run.directory import RunDir
from ondevice.run.studies import StudyDir, find_study
from ondevice.study.story import read_story
from ondevice.study.winner import winner_of
from tests.little_study import LITTLE

TOOL = Path(__file__).parents[3] / "tools" / "release"
STUDY = f"""
name = "little"
seeds = [1, 2]
intervals = 2
[config.data]
split = "hash:0.2"
[[config.data.sources]]
path = "a.txt"
document = "line"
[config.train]
steps = 3
batch = 2
{LITTLE}[[arms]]
name = "learning"
config.train.lr = 3e-2
"""


@pytest.fixture(scope="module")
def tool():
    loader = SourceFileLoader("release_tool", str(TOOL))
    module = module_from_spec(spec_from_loader("release_tool", loader))
    loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    """A folder whose home has a finished study."""
    place = tmp_path_factory.mktemp("studied")
    (place / "a.txt").write_text("\n".join(f"north {k} and {k * 7 % 13} north" for k in range(120)), "utf-8")
    (place / "little.toml").write_text(STUDY, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_HOME", str(place / "home"))
        patch.chdir(place)
        assert main(["study", "run", "little.toml", "--quiet"]) == 0
    return place


@pytest.fixture
def home(studied, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(studied / "home"))
    monkeypatch.chdir(studied)


@pytest.mark.parametrize("speaking", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_study_becomes_a_release(home, tool, tmp_path, capfd, monkeypatch, speaking):
    pytest.importorskip("onnxruntime")
    folder = tmp_path / "release"
    if not speaking:  # two more processes, one of which imports torch
        monkeypatch.setattr(tool, "speaks_alike", lambda *words: True)
    assert tool.main(["little", str(folder), "--per-source", "2", "--max-new-tokens", "4"]) == 0
    said = capfd.readouterr().out
    assert "every byte as released" in said and ("goes on with" in said) == speaking
    told = json.loads((folder / "bundle.json").read_text())
    study = told["lineage"]["study"]
    assert (study["arm"], study["seeds"], study["left_out"]) == ("learning", 2, [])
    assert told["lineage"]["run"] == study["run"] and told["lineage"]["chosen"] == "selected for use"
    assert set(told["lacking"]) == {"licence"} and told["parts"]["study"] == "reports/study.json"
    assert json.loads((folder / "hf" / "generation_config.json").read_text())["ondevice"]
    assert "arm learning" in (folder / "README.md").read_text()
    swept = json.loads(next((folder / "reports").glob("sweep-*.json")).read_text())
    assert swept["step"] == json.loads((folder / "reports" / "selection.json").read_text())["roles"]["practical"]
    # What was measured is not measured again.
    run = RunDir(find_study("little").runs / study["run"])
    args = tool.argparse.Namespace(name="x", per_source=None, max_new_tokens=None, licence="L", quantize="int4")
    wanted = ("export", "x", "--format", "bundle", "--out", str(folder), "--licence", "L", "--quantize", "int4")
    assert list(tool.commands(run, args, folder)) == [wanted]


def with_arms(record, **losses):
    """The record with arms that have the cells of the one that was trained, and other losses."""
    learning, cells = record["results"]["arms"]["learning"], record["cells"]
    arms = {name: {**learning, "best": {**learning["best"], "loss": loss}} for name, loss in losses.items()}
    named = [{**cell, "arm": name} for name in losses for cell in cells]
    return {**record, "cells": named, "results": {**record["results"], "arms": arms}}


@pytest.fixture
def other(home, tmp_path, monkeypatch):
    """A study with the runs of the first and a record that a test may write."""
    little = find_study("little")
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path))
    study = StudyDir(tmp_path / "studies" / "other")
    study.path.mkdir(parents=True)
    study.runs.symlink_to(little.runs)
    return study, little.read()


def test_the_winner_is_the_arm_with_the_lowest_mean_and_its_lowest_seed(other):
    study, record = other
    ends = {seed: read_story(study.run(f"learning-{seed}")).intervals[-1].losses[""] for seed in (1, 2)}
    assert ends[1] != ends[2]
    study.write(with_arms(record, still=5.0, learning=4.0, late=4.5))
    winner = winner_of(study)
    assert (winner.arm, winner.seed, winner.loss) == ("learning", min(ends, key=ends.__getitem__), 4.0)
    assert winner.run == f"learning-{winner.seed}" and "4.0000 over 2 seeds)" in winner.sentence


def test_arms_with_fewer_seeds_are_left_out(other):
    study, record = other
    body = with_arms(record, still=5.0, learning=4.0)
    body["results"]["arms"]["learning"]["seeds"] = [1]
    study.write({**body, "seeds": [1, 2, 3]})
    winner = winner_of(study)
    assert (winner.arm, winner.left_out) == ("still", ("learning",))
    assert "over 2 of 3 seeds; left out, with fewer seeds: learning" in winner.sentence


@pytest.mark.parametrize(
    ("arms", "code", "said"), [({}, 2, "no run is finished"), ({"still": {"seeds": 3, "best": None}}, 3, "damaged")]
)
def test_a_study_without_a_winner_is_refused_in_one_sentence(other, capsys, arms, code, said):
    study, record = other
    study.write({**record, "results": {**record["results"], "arms": arms}})
    assert main(["export", "other", "--format", "bundle"]) == code
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
