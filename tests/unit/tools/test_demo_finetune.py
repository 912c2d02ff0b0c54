"""The demonstration of fine-tuning goes on where it was stopped, and never with other settings or rows."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import numpy as np
import pytest

from ondevice.model.safetensors import write

SCRIPT = Path(__file__).parents[3] / "tools" / "demo_finetune"


@pytest.fixture
def demo(tmp_path, monkeypatch):
    """The script as a module; its commands are only noted, in ``demo.called``."""
    loader = SourceFileLoader("demo_finetune", str(SCRIPT))
    module = module_from_spec(spec_from_loader("demo_finetune", loader))
    monkeypatch.setitem(sys.modules, "demo_finetune", module)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader.exec_module(module)
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    module.called = []
    monkeypatch.setattr(module, "ondevice", lambda *words: module.called.append(words))
    return module


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n')
    return path


def begin(demo, place, *words, state):
    """Trains, and leaves what a trainer would."""
    demo.train(place, "tickets", *words)
    run = demo.home_run("tickets")
    run.mkdir(parents=True)
    (run / "status.json").write_text(json.dumps({"state": state}))


def test_a_stopped_training_goes_on_and_a_finished_one_is_left_alone(demo, tmp_path, rows, capsys):
    words = ("--data", rows, "--name", "tickets")
    begin(demo, tmp_path, *words, state="stopped")
    demo.train(tmp_path, "tickets", *words)
    assert demo.called == [("train", *words), ("train", "tickets")]
    (demo.home_run("tickets") / "status.json").write_text('{"state": "finished"}')
    demo.train(tmp_path, "tickets", *words)
    assert len(demo.called) == 2 and "trained already" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["settings", "rows", "held-out"])
def test_a_run_of_other_settings_or_rows_is_refused(demo, tmp_path, rows, capsys, change):
    contract, held = tmp_path / "contract.toml", tmp_path / "held-out.jsonl"
    held.write_text("{}\n")
    words = ["--data", rows, "--set", f"data.contract={contract}", "--set", "train.steps=4"]
    begin(demo, tmp_path, *words, state="finished")
    if change == "settings":
        words[-1] = "train.steps=5"
    else:
        (rows if change == "rows" else held).write_text('{"other": 1}\n')
    with pytest.raises(SystemExit) as ended:
        demo.train(tmp_path, "tickets", *words)
    assert ended.value.code == 2 and "other settings or rows; name another folder" in capsys.readouterr().out


def test_a_base_is_described_by_what_it_holds(demo, tmp_path):
    (tmp_path / "config.json").write_text('{"hidden_size": 8, "num_hidden_layers": 2}')
    write(tmp_path / "model.safetensors", {"a": np.zeros((1000, 100), "float32"), "b": np.zeros(7, "float32")})
    assert demo.parameters(tmp_path) == 100_007
    assert demo.described(tmp_path, None) == "0.1 M parameters (2 layers x 8)"
    (tmp_path / "status.json").write_text('{"tokens": 300000}')
    assert demo.described(tmp_path, tmp_path).endswith("(2 layers x 8, trained here on 0.30 M tokens)")


def test_the_command_that_the_page_names_has_only_what_differs(demo):
    args = argparse.Namespace(base=None, size="full", precision="auto", side="held_out", seed=demo.ROW_SEED)
    assert demo.command_of(args) == "tools/demo_finetune FOLDER --size full"
    args.side, args.seed, args.precision = "develop", 9, "bf16"
    assert demo.command_of(args) == "tools/demo_finetune FOLDER --size full --precision bf16 --side develop --seed 9"
