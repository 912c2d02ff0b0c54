"""Which packages are installed, without importing them; and a trial import in a child process that may crash.

A native package built for another processor dies with a signal, which no ``except`` catches: hence the child.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

__all__ = ["OPTIONAL", "REQUIRED", "TRIALS", "Trial", "major_minor", "try_statement", "version_of"]

REQUIRED = ("torch", "numpy", "psutil", "cattrs", "rich")
OPTIONAL = ("tokenizers", "sentencepiece", "onnxruntime", "textual")

# A little work beside the import: some builds load anywhere and die at the first kernel.
TRIALS = {
    "torch": "import torch; a = torch.ones(64, 64, requires_grad=True); (a @ a).sum().backward()",
    "numpy": "import numpy; numpy.ones((64, 64)) @ numpy.ones((64, 64))",
    "onnxruntime": "import onnxruntime",
    "tokenizers": "import tokenizers",
    "sentencepiece": "import sentencepiece",
}


@dataclass(frozen=True)
class Trial:
    """How a trial ended: worked, failed, or None: it could not be tried or took too long, which proves nothing.

    ``signal`` names what killed it (``"SIGILL"``); ``detail`` is one line for a person.
    """

    ok: bool | None
    signal: str | None = None
    detail: str = ""


def version_of(package: str) -> str | None:
    """The installed version; ``"?"`` when it can be imported but left no record; None when it is not there."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "?" if importlib.util.find_spec(package) else None


def major_minor(version: str) -> tuple[int, int] | None:
    """``(2, 13)`` of ``"2.13.0+cpu"``; None when the text is no version."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else None


def try_statement(statement: str, *, timeout_s: float = 60.0) -> Trial:
    """Runs Python code in a child of its own process group, and tells how it ended. Never raises."""
    command = [sys.executable, "-P", "-c", statement]  # -P: a torch.py in the current folder is not torch
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        return Trial(None, detail=f"no child process could be started ({error.strerror})")
    with child:
        try:
            _, err = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            return Trial(None, detail=f"it did not finish in {timeout_s:g} s")
    return _outcome(child.returncode, err.decode(errors="replace"))


def _outcome(code: int, err: str) -> Trial:
    if code == 0:
        return Trial(True)
    if code < 0:
        name = _signal_name(-code)
        return Trial(False, signal=name, detail=f"killed by {name}")
    lines = err.strip().splitlines()
    return Trial(False, detail=lines[-1].strip() if lines else f"exit code {code}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
