"""A release bundle: made of a run, carried elsewhere, checked to the byte, and used there by us and by transformers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ondevice.cli.main import main

GREEDY = ("--temperature", "0", "--max-new-tokens", "8", "--json")


@pytest.fixture(scope="module")
def bundle(trained, tmp_path_factory):
    """A bundle of a measured and swept run, far from its run; and what the run itself says."""
    pytest.importorskip("onnxruntime")
    home, elsewhere = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(trained / "home", home, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_HOME", str(home))
        patch.chdir(trained)
        (trained / "LICENCE.txt").write_text("Do what you like.\n")
        assert main(["select", "tiny", "--per-source", "4", "--max-new-tokens", "4"]) == 0
        config = {"do_sample": True, "temperature": 0.5, "top_k": 7, "ondevice": {"seed": 4}}
        (home / "runs" / "tiny" / "evals" / "generation_config.json").write_text(json.dumps(config))
        words = ["export", "tiny", "--format", "bundle", "--licence", "LICENCE.txt"]
        assert main([*words, "--out", str(elsewhere / "b")]) == 0
    return elsewhere / "b"


@pytest.fixture
def far(bundle, tmp_path, monkeypatch):
    """A copy of it on a machine that knows no run."""
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "empty"))
    shutil.copytree(bundle, tmp_path / "b")
    return tmp_path / "b"


def test_it_holds_what_a_release_needs(bundle):
    told = json.loads((bundle / "bundle.json").read_text())
    assert set(told["parts"]) >= {
        "native checkpoint", "tokenizer", "training config", "telemetry", "benchmark", "selection", "hf", "onnx",
        "probes and generations", "generation settings", "release note", "licence",
    }  # fmt: skip
    assert set(told["lacking"]) == {"decoding"} and "ondevice sweep tiny" in told["lacking"]["decoding"]
    assert all((bundle / place).exists() for place in told["parts"].values())
    card = (bundle / "README.md").read_text()
    assert "validation loss" in card and "shuffled" in card and "energy" in card and "selected for use" in card
    assert not list(bundle.rglob("optimizer.safetensors"))
    settings = json.loads((bundle / "hf" / "generation_config.json").read_text())
    assert (settings["temperature"], settings["top_k"]) == (0.5, 7) and "top_p" not in settings
    assert json.loads((bundle / "onnx" / "generation_config.json").read_text())["top_k"] == 7
    assert told["lineage"]["run"] == "tiny" and told["lineage"]["chosen"] == "selected for use"


def test_it_is_sound_and_speaks_elsewhere(far, call, reading, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(reading))
    step = json.loads((far / "bundle.json").read_text())["lineage"]["step"]
    wanted = call("generate", "tiny", "the cat", "--step", step, *GREEDY).json["ids"]
    monkeypatch.setenv("ONDEVICE_HOME", str(far.parent / "empty"))
    result = call("verify", far)
    assert result.code == 0 and "every byte as released" in result.out and ": sound" in result.out
    for part in (far, far / "onnx"):
        assert call("generate", part, "the cat", *GREEDY).json["ids"] == wanted
    assert "recommended by a sweep: temperature 0.5" in call("generate", far, "x", "--max-new-tokens", "1").err


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["README.md", "LICENSE", "hf/model.safetensors", "onnx/model.onnx", "native/recipe.json", "bundle.json"]
)
def test_one_changed_bit_is_found(far, call, name):
    flip(far / name)
    result = call("verify", far)
    assert result.code in (3, 4) and name.rsplit("/", 1)[-1] in result.out + result.err


def test_what_is_missing_or_strange_is_found(far, call):
    (far / "extra.txt").write_text("x")
    result = call("verify", far, "--json")
    assert result.code == 0 and any(each["file"] == "extra.txt" for each in result.json["findings"])
    (far / "LICENSE").unlink()
    result = call("verify", far)
    assert result.code == 4 and "LICENSE: missing" in result.out and "1 thing is damaged" in result.out


def test_the_checkpoint_of_another_is_found(far, call):
    """Every hash may be right and the bundle still be of something else."""
    from ondevice.run.files import read_sealed, write_sealed

    body = read_sealed(far / "bundle.json", version=1)
    body["lineage"]["checkpoint_sha256"] = "0" * 64
    write_sealed(far / "bundle.json", body)
    assert "not the one that was released" in call("verify", far).out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--licence", "absent"), "licence cannot be read"),
        (("--licence", "empty"), "not the text of a licence"),
        (("--type", "f16"), "--type is for --format gguf"),
        (("--step", "7"), "no checkpoint of step 7"),
        (("--out", "."), "exists already"),
        (("--out", ".", "--overwrite"), "not an export"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(reading, call, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text(" ")
    result = call("export", "tiny", "--format", "bundle", *(words if "--out" in words else ("--out", "b", *words)))
    assert result.code in (2, 4) and said in result.error
    assert [each.name for each in tmp_path.iterdir()] == ["empty"]


def test_only_bundles_are_bundles(far, reading, call):
    assert "--licence is for --format bundle" in call("export", "tiny", "--licence", "x").error
    assert "only re-checked" in call("verify", far, "--replay").error


@pytest.mark.slow
def test_a_clean_process_loads_it(far):
    """With no home, no run and, for transformers, none of our code on the path."""
    code = (
        "import sys, torch\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model, tokenizer = (each.from_pretrained(sys.argv[1]) for each in (AutoModelForCausalLM, AutoTokenizer))\n"
        "ids = tokenizer('the cat', return_tensors='pt')\n"
        "new = model.generate(**ids, do_sample=False, max_new_tokens=8)[0, ids['input_ids'].shape[1]:].tolist()\n"
        "print([each for each in new if each != tokenizer.eos_token_id])\n"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ONDEVICE_HOME")}
    theirs = subprocess.run(
        [sys.executable, "-c", code, str(far / "hf")], env=env, cwd=far, capture_output=True, text=True, check=True
    )
    words = [sys.executable, "-m", "ondevice", "generate", str(far), "the cat", *GREEDY]
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), "ONDEVICE_HOME": str(far.parent / "nothing")}
    ours = subprocess.run(words, env=env, cwd=far, capture_output=True, text=True, check=True)
    assert json.loads(theirs.stdout.splitlines()[-1]) == json.loads(ours.stdout)["ids"]
