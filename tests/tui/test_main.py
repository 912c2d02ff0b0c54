"""The command: sentences and exit codes, and what importing may not pull in."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tui
from tui.main import main


def test_the_feed_pulls_neither_textual_nor_torch() -> None:
    code = (
        "import sys, tui.feed, tui.main; "
        "bad = [m for m in sys.modules if m.split('.')[0] in ('textual', 'torch', 'numpy')]; print(bad)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_app_pulls_no_torch() -> None:
    code = "import sys, tui.app; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_tui_imports_only_run_and_errors_of_the_library() -> None:
    for path in Path(tui.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ondevice"):
                assert (node.module or "").startswith(("ondevice.run", "ondevice.errors")), path


def test_without_textual_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, *rest: Any) -> Any:
        return None if name == "textual" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    assert main([]) == 6
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "-m pip install textual" in said


def test_on_windows_one_sentence_and_nothing_of_posix_is_imported() -> None:
    code = (
        "import os, sys, importlib.metadata; sys.modules['fcntl'] = None; os.name = 'nt'; "
        "from {module} import main; sys.exit(main([]))"
    )
    for module in ("tui.main", "ondevice.cli.main"):
        done = subprocess.run([sys.executable, "-c", code.format(module=module)], capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (6, ""), done.stderr
        assert done.stderr.count("\n") == 1 and "`wsl --install`" in done.stderr


def test_without_a_terminal_one_sentence(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path))
    assert main([]) == 6
    assert "needs a terminal" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "word"), [(["nots"], "notes"), (["--asci"], "--help"), (["--demo", "notes"], "leave out")]
)
def test_a_wrong_word_is_refused(
    argv: list[str], word: str, runs: Path, paper: Any, monkeypatch: Any, capsys: Any
) -> None:
    paper("notes")
    monkeypatch.setenv("ONDEVICE_HOME", str(runs.parent))
    assert main(argv) == 2
    assert word in capsys.readouterr().err
