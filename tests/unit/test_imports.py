"""Torch and Textual start late: what answers at once must not load them, directly or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ondevice

ROOT = Path(ondevice.__file__).parent
LIGHT = (
    "errors.py",
    "run/*.py",
    "device/*.py",
    "data/*.py",
    "cli/main.py",
    "cli/status.py",
    "model/counts.py",
    "train/plan.py",
    "train/sizing.py",
    "train/memory.py",
)
PROGRAM = """
import importlib, sys
sys.modules.update(dict.fromkeys(("torch", "textual", "tui")))  # an import of these now fails and names the line
importlib.import_module(sys.argv[1])
"""


def modules() -> list[str]:
    found = [path for pattern in LIGHT for path in sorted(ROOT.glob(pattern))]
    return [".".join(("ondevice", *path.relative_to(ROOT).with_suffix("").parts)) for path in found]


def python(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)


def test_light_modules_load_without_torch_and_textual() -> None:
    names = modules()
    assert {"ondevice.errors", "ondevice.run.store", "ondevice.cli.main"} <= set(names)
    done = python(
        "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(sorted({'torch', 'textual', 'tui'} & set(sys.modules)))",
        *names,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n", "one of them loads a heavy package; the slow test below names it"


@pytest.mark.slow
@pytest.mark.parametrize("name", modules())
def test_each_light_module_alone(name: str) -> None:
    done = python(PROGRAM, name)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["status", "--help"], ["config", "explain"]])
def test_commands_that_answer_at_once_load_no_torch(words: list[str]) -> None:
    done = python(
        "import sys\nfrom ondevice.cli.main import main\n"
        "try:\n    code = main(sys.argv[1:])\nexcept SystemExit as leaving:\n    code = leaving.code\n"
        "print(sorted({'torch', 'textual', 'tui'} & set(sys.modules)), code)",
        *words,
    )
    assert done.stdout.endswith("\n[] 0\n") and done.stdout.count("\n") > 1, done.stderr + done.stdout


def test_importing_does_no_work(tmp_path: Path) -> None:
    """No file is made and no thread started by importing."""
    program = (
        "import importlib, os, sys, threading\n"
        "for name in sys.argv[2:]: importlib.import_module(name)\n"
        "print(os.listdir(sys.argv[1]), threading.active_count())"
    )
    command = [sys.executable, "-c", program, str(tmp_path), *modules()]
    environment = {
        "HOME": str(tmp_path),
        "ONDEVICE_HOME": str(tmp_path / "home"),
        "PATH": "",
        "PYTHONPATH": ":".join(sys.path),
    }
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.stdout == "[] 1\n", done.stderr


def test_building_data_needs_no_torch(tmp_path):
    """A build must fit where training would not, and answer before torch is loaded."""
    text = tmp_path / "notes.txt"
    text.write_text("\n\n".join(f"note {number} says something else" for number in range(300)))
    code = (
        "import sys\n"
        "from ondevice.cli.main import main\n"
        f"code = main(['data', 'build', '--data', {str(text)!r}, '--set', 'tokenizer.kind=byte', '--json'])\n"
        "sys.exit(code or ('torch' in sys.modules and 'torch was imported') or 0)\n"
    )
    environment = {**os.environ, "ONDEVICE_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
