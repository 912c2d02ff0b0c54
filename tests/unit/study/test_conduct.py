"""A whole tiny study: forks, reuse, a kill in the middle, one process or many, the same figures to the last bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ondevice.cli.main import main, make_parser, parse
from ondevice.cli.study import _again
from ondevice.errors import CheckpointError
from ondevice.run.directory import list_runs
from ondevice.run.studies import StudyDir, find_study
from ondevice.run.telemetry import launch_files
from tests.little_study import LITTLE

STUDY = f"""
name = "little"
seeds = [1, 2]
intervals = 3
[config.data]
split = "hash:0.2"
[[config.data.sources]]
path = "a.txt"
document = "line"
[[config.data.sources]]
path = "b.txt"
document = "line"
[config.train]
steps = 6
batch = 2
lr = 3e-3
schedule = "wsd"
{LITTLE}[[arms]]
name = "trunk"
[[arms]]
name = "alphabetical"
config.data.order = "alphabetical"
config.train.lr = 2e-3
[[arms]]
name = "tail"
from = "trunk"
at_tokens = 256
tokens = 128
tail = "linear"
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for name, word in (("a", "north"), ("b", "south")):
        lines = [f"{word} {number} and {number * 7 % 13} {word}" for number in range(120)]
        Path(f"{name}.txt").write_text("\n".join(lines), "utf-8")
    Path("little.toml").write_text(STUDY, "utf-8")
    return tmp_path


def launches(study: StudyDir) -> dict[str, int]:
    return {run.name: len(launch_files(run.telemetry)) for run in list_runs(study.runs)}


def figures(study: StudyDir) -> object:
    results = study.read()["results"]
    for arm in results["arms"].values():
        del arm["cost"]
    return results


def test_a_study_is_trained_once_and_grows_by_seeds(place, capsys):
    Path("little.toml").write_text(STUDY.replace("[1, 2]", "[1]"), "utf-8")
    assert main(["study", "run", "little.toml", "--quiet"]) == 0
    study = find_study("little")
    first = figures(study)
    assert main(["study", "run", "little.toml", "--quiet"]) == 0
    assert launches(study) == dict.fromkeys(("alphabetical-1", "tail-1", "trunk-1"), 1)
    assert figures(study) == first  # nothing was trained again

    Path("little.toml").write_text(STUDY, "utf-8")
    assert main(["study", "run", "little.toml", "--quiet"]) == 0
    assert len(launches(study)) == 6 and set(launches(study).values()) == {1}
    record = study.read()
    assert [cell["name"] for cell in record["cells"]] == [
        "trunk-1", "alphabetical-1", "tail-1", "trunk-2", "alphabetical-2", "tail-2",
    ]  # fmt: skip
    assert {cell["state"] for cell in record["cells"]} == {"finished"}
    assert {arm["name"]: arm["changes"] for arm in record["arms"]}["alphabetical"] == ["train.lr=0.002"]
    arms = record["results"]["arms"]
    assert arms["tail"]["tokens"] == [256, 320, 384] and arms["trunk"]["tokens"] == [0, 192, 384]
    assert arms["trunk"]["anova"]["subjects"] == 2
    for cell in record["cells"]:
        recipe = study.run(cell["name"]).read_recipe()
        assert recipe.sha256 == cell["recipe_sha256"] and recipe.train.seed == recipe.data.seed == cell["seed"]
    assert study.run("tail-1").read_identity()["parent"]["run"] == "trunk-1"

    capsys.readouterr()
    assert main(["study", "status", "little"]) == 0
    assert "little: 6 of 6 runs finished" in capsys.readouterr().out
    assert main(["study", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["studies"][0]["finished"] == 6


def test_changed_wishes_are_refused_or_said(place, capsys):
    Path("little.toml").write_text(STUDY.replace("[1, 2]", "[1]").partition('[[arms]]\nname = "alph')[0], "utf-8")
    assert main(["study", "run", "little.toml"]) == 0
    assert "The study has one seed: neither a spread" in capsys.readouterr().out
    changed = Path("little.toml").read_text("utf-8").replace("lr = 3e-3", "lr = 1e-3")
    Path("little.toml").write_text(changed, "utf-8")
    assert main(["study", "run", "little.toml", "--quiet"]) == 2
    refused = capsys.readouterr().err
    assert "trunk-1: this run was started with train.lr = 0.003, not 0.001" in refused
    assert "give the study another name" in refused and "--name" not in refused
    late = STUDY.replace("[1, 2]", "[1]").replace("at_tokens = 256", "at_tokens = 320")
    Path("little.toml").write_text(late, "utf-8")  # an arm that came when its parent was trained already
    assert main(["study", "run", "little.toml", "--quiet"]) == CheckpointError.exit_code
    assert "no checkpoint of step 5 (320 tokens) for tail-1 to go on from; there are:" in capsys.readouterr().err


def test_the_command_that_goes_on_counts_from_the_same_folder():
    words = ["run", "my study.toml", "--base", "/usr"]
    assert _again(parse(make_parser("study"), words)[0]) == "ondevice study run 'my study.toml' --base /usr"


def test_a_range_test_is_kept_in_the_record(place, capsys):
    Path("little.toml").write_text(STUDY.partition('[[arms]]\nname = "alph')[0], "utf-8")
    words = ["study", "run", "little.toml", "--lr-range", "1e-4..1", "--steps", "12"]
    assert main(words) == 0
    assert "trunk: train.lr about" in capsys.readouterr().out
    found = find_study("little").read()["lr_range"]["trunk"]
    assert found["seeds"] == [1, 2] and 1e-4 <= found["lowest"] <= found["suggested"] <= found["highest"] <= 1
    assert len(found["tests"][0]["lrs"]) == 12
    assert main(["study", "run", "little.toml", "--steps", "12"]) == 2


def test_a_damaged_or_foreign_record_is_one_sentence(place, capsys):
    assert main(["study", "status", "litle"]) == 2
    (place / "home" / "studies" / "little").mkdir(parents=True)
    (place / "home" / "studies" / "little" / "study.json").write_text("{}", "utf-8")
    assert main(["study", "status", "litle"]) == 2
    assert "no such study (did you mean 'little'?)" in capsys.readouterr().err
    assert main(["study", "status", "little"]) == 3
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_killed_anywhere_it_goes_on_to_the_same_figures(place):
    assert main(["study", "run", "little.toml", "--quiet"]) == 0
    whole = figures(find_study("little"))
    Path("killed.toml").write_text(STUDY.replace('"little"', '"killed"'), "utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    kills = 0
    for patience_s in (1.5, 3.0, 4.0, 5.0, 6.0, 4.5, 5.5):
        command = [sys.executable, "-m", "ondevice", "study", "run", "killed.toml", "--quiet"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            time.sleep(patience_s)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
    assert kills >= 2
    assert main(["study", "run", "killed.toml", "--quiet"]) == 0
    assert figures(find_study("killed")) == whole
