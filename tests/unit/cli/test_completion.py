"""Completion: what may come next, and that real shells ask for it and take it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from ondevice.cli.completion import FILES, SCRIPTS, WORDS
from ondevice.cli.main import COMMANDS
from ondevice.run.config import explain, preset_names

LINES = {  # what is typed -> what it becomes
    "ondevice sta": ["status"],
    "ondevice status ti": ["tiny"],
    "ondevice plan --set limits.preset=de": ["desk"],
    "ondevice data insp": ["inspect"],
    "ondevice fork tiny --at la": ["latest"],
    "ondevice plan --data wor": ["words.txt"],
}


@pytest.fixture
def offered(call, monkeypatch):
    """``offered("status", "ti")``: candidates for the last word after the others."""

    def ask(*words):
        monkeypatch.setenv(WORDS, "\n".join([words[-1], *words[:-1]]))
        result = call("completion", "bash")
        assert (result.code, result.err) == (0, "")
        return [line.split("\t")[0] for line in result.out.splitlines() if line]

    return ask


def test_commands_come_first(offered):
    assert offered("") == [*COMMANDS, "--help", "--version"]
    assert offered("sta") == ["status"] and offered("help", "sta") == ["status"]
    assert offered("xyzzy", "") == []


def test_flags_are_those_of_the_command_and_of_its_action(offered):
    assert {"--json", "--watch", "--line", "--help"} <= set(offered("status", "--"))
    assert offered("status", "--wa") == ["--watch"]
    assert "--verify" in offered("data", "inspect", "--") and "--verify" not in offered("data", "--")
    assert offered("runs", "") == ["list", "rename", "rm", "du"]
    assert offered("status", "--", "--") == [FILES]


def test_values_of_flags(offered):
    tails = ["inverse-proportional", "linear", "cosine", "1-sqrt"]
    assert offered("fork", "x", "--tail", "") == tails and offered("fork", "x", "--tail=c") == ["--tail=cosine"]
    assert offered("train", "--device", "sim:gal") == ["sim:galaxy-s25plus"]
    assert offered("train", "--name", "") == [], "a new name is nobody's to guess"
    assert offered("plan", "--data", "") == [FILES]
    assert offered("status", "--width", "30", "--wa") == ["--watch"]


def test_keys_of_the_config(offered):
    assert offered("plan", "--set", "train.lr") == ["train.lr=", "train.lr_min="]
    assert offered("train", "x", "--set=train.prec") == ["--set=train.precision="]
    assert offered("plan", "--set", "train.precision=") == [
        f"train.precision={word}" for word in ("auto", "fp32", "bf16")
    ]
    assert offered("plan", "--set", "limits.fixed_fit=t") == ["limits.fixed_fit=true"]
    assert offered("limit", "x", "max_batt") == ["max_battery_c="]
    assert offered("limit", "x", "preset=desk", "plugged_only=") == ["plugged_only=true", "plugged_only=false"]
    assert set(offered("config", "explain", "train")) >= {"train", "train.lr"}
    every = offered("plan", "--set", "")
    assert every == [f"{row['key']}=" for row in explain() if "[]" not in row["key"]]


def test_names_of_runs_steps_datasets_and_presets(reading, offered):
    assert offered("status", "") == ["tiny"] and offered("compare", "tiny", "") == [FILES]
    assert offered("pin", "tiny", "1") == ["12"] and "12" in offered("fork", "tiny", "--at", "")
    assert offered("export", "tiny", "--step", "") == offered("pin", "tiny", "")
    assert offered("data", "inspect", "words")[0].startswith("words-")
    assert offered("train", "") == [*preset_names(), "tiny"]
    assert offered("plan", "./") == [FILES] and offered("status", "nosuch") == [FILES]


def test_what_a_shell_would_run_is_never_offered(own, offered):
    for name in ("$(reboot)", "a;b", "two words", "new\nline", "`x`", "é"):
        shutil.copytree(own / "runs" / "tiny", own / "runs" / name)
    assert offered("status", "") == ["tiny", "é"]


def test_a_home_that_cannot_be_read_offers_nothing(place, offered, monkeypatch):
    monkeypatch.setenv("ONDEVICE_HOME", str(place / "words.txt"))
    assert offered("status", "") == [FILES] and offered("pin", "x", "") == []


def test_an_unknown_shell(call):
    assert "invalid choice: 'tcsh' (choose from" in call("completion", "tcsh").error


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts_are_printed_and_parsed_by_their_shells(call, shell, tmp_path):
    script = call("completion", shell).out
    assert script == SCRIPTS[shell] and max(map(len, script.splitlines())) <= 120
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    (tmp_path / "script").write_text(script)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@pytest.fixture
def shell_env(reading, tmp_path):
    """An environment in which ``ondevice`` is this one, and the working folder of the run's text."""
    program = tmp_path / "ondevice"
    program.write_text(f'#!{shutil.which("bash")}\nexec {sys.executable} -m ondevice "$@"\n')
    program.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": ":".join(filter(None, sys.path))}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes(shell_env):
    tries = "\n".join(
        f'COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}}; _ondevice; echo "${{COMPREPLY[@]}}"' for line in LINES
    )
    script = f"{SCRIPTS['bash']}\n{tries}"
    found = subprocess.run(["bash", "-c", script], env=shell_env, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [" ".join(words) for words in LINES.values()]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(shell_env):
    tries = "\n".join(f"complete -C '{line}' | string split -f1 \\t" for line in LINES)
    found = subprocess.run(["fish", "-c", f"{SCRIPTS['fish']}\n{tries}"], env=shell_env, capture_output=True, text=True)
    assert [line.removeprefix("limits.preset=") for line in found.stdout.splitlines()] == [
        word for words in LINES.values() for word in words
    ]
