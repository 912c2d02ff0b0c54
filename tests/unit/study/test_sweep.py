"""The sweep: arms, disjoint prompts, the winner held out, and settings that later commands use."""

import csv
import json
from pathlib import Path

import pytest

from ondevice.cli.main import main
from ondevice.errors import DataError, UsageError
from ondevice.infer.generation_config import (
    GENERATION_CONFIG,
    read_generation_config,
    to_generation_config,
    write_generation_config,
)
from ondevice.infer.presets import PRESETS
from ondevice.infer.sampling import Sampling
from ondevice.run.files import write_json
from ondevice.study.evaluation import Wish
from ondevice.study.prompts import Prompt, PromptSet
from ondevice.study.sweep import arms_of, sweep
from ondevice.study.target import open_target

FLAGS = ("--per-source", "4", "--max-new-tokens", "6")


def test_arms_are_presets_and_a_grid_without_doubles():
    arms = arms_of(["precise"], {"temperature": [0.5, 0.8], "top_k": [50]}, seed=3)
    assert [arm.name for arm in arms] == ["default", "precise", "temperature=0.5 top_k=50"]  # 0.8 and 50 is the default
    assert all(arm.sampling.seed == 3 for arm in arms) and type(arms[-1].sampling.top_k) is int
    assert arms_of([], {}, seed=1)[0].sampling == PRESETS["default"]


@pytest.mark.parametrize(
    ("presets", "grid", "says"),
    [
        (["precize"], {}, "did you mean 'precise'"),
        ([], {"temperature": [-1.0]}, "temperature"),
        ([], {"temperature": [k / 100 for k in range(1, 60)], "top_p": [0.5, 0.6, 0.7, 0.9]}, "smaller grid"),
    ],
)
def test_senseless_arms_are_refused(presets, grid, says):
    with pytest.raises(UsageError, match=says):
        arms_of(presets, grid, seed=1)


def test_prompts_on_both_sides_are_refused(own):
    same = PromptSet((Prompt(prompt="the cat"), Prompt(prompt="a dog")), "here")
    with open_target("tiny") as target:
        with pytest.raises(UsageError, match="separate them"):
            sweep(target, Wish(prompts=same, max_new_tokens=4), arms_of([], {}, seed=1), holdout=same)
        with pytest.raises(UsageError, match="two different"):
            alone = PromptSet((Prompt(prompt="x"),), "here")
            sweep(target, Wish(prompts=alone, max_new_tokens=4), arms_of([], {}, seed=1))


def test_the_winner_is_held_out_and_becomes_the_default(own, capsys):
    words = ("sweep", "tiny", "--presets", "greedy", "--try-temperature", "0.2", "1.5", *FLAGS, "--json")
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    rows = result["leaderboard"]
    assert [row["quality"] for row in rows] == sorted((row["quality"] for row in rows), reverse=True)
    assert rows[0]["arm"] == result["winner"]["arm"] and len(rows) == 4
    assert result["tuning"]["n"] == 4 == result["holdout"]["n"]
    assert result["tuning"]["sha256"] != result["holdout"]["sha256"]
    with open(own.evals / result["files"][0], newline="") as file:
        assert [row["arm"] for row in csv.DictReader(file)] == [row["arm"] for row in rows]
    settings = read_generation_config(own.evals)
    assert Sampling(**{name: value for name, value in settings.items() if name != "max_new_tokens"}) == Sampling(
        **{name: value for name, value in result["winner"].items() if name != "arm"}
    )
    assert main(words) == 0 and json.loads(capsys.readouterr().out) == result  # the same again
    assert main(["verify", "tiny"]) == 0


def test_generate_and_exports_use_what_was_found(own, capsys):
    def generated(target, *flags):
        assert main(["generate", target, "the cat", "--max-new-tokens", "12", "--json", *flags]) == 0
        return json.loads(capsys.readouterr().out)["ids"]

    hot, greedy = (
        generated("tiny", "--temperature", "3", "--top-k", "0", "--top-p", "1"),
        generated("tiny", "--temperature", "0"),
    )
    assert hot != greedy
    config = to_generation_config(Sampling(temperature=0.0), max_new_tokens=64, eot_id=256, origin={"arm": "greedy"})
    write_generation_config(own.evals, config)
    assert generated("tiny") == greedy
    assert generated("tiny", "--temperature", "3", "--top-k", "0", "--top-p", "1") == hot  # what is asked for wins
    assert main(["export", "tiny", "--out", "out"]) == 0
    capsys.readouterr()
    assert json.loads(Path("out", GENERATION_CONFIG).read_text("utf-8"))["do_sample"] is False
    assert generated("out") == greedy


def test_transformers_reads_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    settings = Sampling(temperature=0.7, top_k=40, top_p=0.9, repetition_penalty=1.1, seed=5)
    write_generation_config(tmp_path, to_generation_config(settings, max_new_tokens=32, eot_id=0, origin={}))
    loaded = transformers.GenerationConfig.from_pretrained(tmp_path)
    assert (loaded.temperature, loaded.top_k, loaded.top_p, loaded.repetition_penalty) == (0.7, 40, 0.9, 1.1)
    assert (loaded.do_sample, loaded.max_new_tokens, loaded.eos_token_id) == (True, 32, 0)
    assert read_generation_config(tmp_path)["seed"] == 5


@pytest.mark.parametrize("raw", [[], {"temperature": -1}, {"top_k": "many"}, {"max_new_tokens": "x"}])
def test_damaged_settings_are_named(tmp_path, raw):
    write_json(tmp_path / GENERATION_CONFIG, raw)
    with pytest.raises(DataError, match=GENERATION_CONFIG):
        read_generation_config(tmp_path)


def test_bad_requests(own, capsys):
    assert main(["sweep", "tiny", "--temperature", "1"]) == 2
    assert "--try-temperature" in capsys.readouterr().err
    assert main(["sweep", "tiny", "--try-top-k", "1.5"]) == 2
    assert main(["sweep", "tiny", "--holdout", "none.jsonl"]) == 3
