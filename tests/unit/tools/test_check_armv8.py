"""The check on another core, with the interpreter that runs the tests in the part of the other one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CHECK = ROOT / "tools/check_armv8"


def run(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    around = {name: value for name, value in os.environ.items() if name != "ONDEVICE_ARM64_PYTHON"} | env
    return subprocess.run([sys.executable, str(CHECK), *words], env=around, capture_output=True, text=True, timeout=200)


def test_it_needs_an_interpreter() -> None:
    done = run()
    assert done.returncode == 2 and "ONDEVICE_ARM64_PYTHON" in done.stderr


def test_an_interpreter_without_torch_fails_in_words(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'No module named torch' >&2\nexit 1\n")
    python.chmod(0o755)
    done = run(ONDEVICE_ARM64_PYTHON=str(python))
    assert done.returncode == 1
    assert "FAILED: " in done.stderr and "No module named torch" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_the_whole_check_with_this_interpreter(tmp_path: Path) -> None:
    done = run(sys.executable, "--keep", str(tmp_path / "kept"))
    assert done.returncode == 0, done.stderr
    assert "the same bits of weights and optimizer" in done.stdout
    assert "losses at most 0.0e+00 nats apart" in done.stdout
    assert {path.name for path in (tmp_path / "kept").iterdir()} >= {"whole", "killed", "here"}
