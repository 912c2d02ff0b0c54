"""Quickstart as a person starts it: a process of its own, on real code, small enough to end in seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

STEPS = 480
CHANGES = [
    "tokenizer.kind=byte",
    "model.layers=2",
    "model.width=32",
    "model.heads=2",
    "model.context=64",
    f"train.steps={STEPS}",
    "train.batch=4",
    "train.precision=fp32",
    "fit.threads=1",
    "eval.count=7",
    "eval.max_tokens=2048",
    "sample.count=2",
    "sample.max_new_tokens=8",
    "limits.save_every_s=0.2",
    "limits.save_every_steps=40",  # on a fast machine too there are many saves to be met
    "limits.min_free_disk_mb=0",
]


@dataclass(frozen=True)
class Quickstart:
    """One place to run quickstart in, again and again, with the same words."""

    folder: Path
    text: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def run(self) -> Path:
        return self.home / "runs" / "first"

    @property
    def words(self) -> list[str]:
        words = [sys.executable, "-m", "ondevice", "quickstart", str(self.text), "--name", "first", "--minutes", "1"]
        return words + [word for change in CHANGES for word in ("--set", change)]

    @contextmanager
    def process(self, *flags: str) -> Iterator[subprocess.Popen[str]]:
        """The command with ``--json``, its output in pipes; killed where the test leaves it alive."""
        env = os.environ | {"ONDEVICE_HOME": str(self.home)}
        with subprocess.Popen(
            [*self.words, *(flags or ("--json",))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pipesize=1 << 20,  # who waits for a file does not read, and a full pipe would stop the child
            text=True,
            encoding="utf-8",
            cwd=self.folder,
            env=env,
        ) as child:
            try:
                yield child
            finally:
                child.kill()

    def finish(self) -> list[dict[str, Any]]:
        """Runs to the end; gives every line of the output."""
        with self.process() as child:
            out, err = child.communicate(timeout=200)
        assert child.returncode == 0, err
        assert err == ""
        return [json.loads(line) for line in out.splitlines()]

    def weights(self) -> dict[str, bytes]:
        """Every byte of the last checkpoint's tensors."""
        folder = self.run / "checkpoints" / f"step-{STEPS:08d}"
        return {name: (folder / name).read_bytes() for name in ("model.safetensors", "optimizer.safetensors")}


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some hundred kilobytes of real code: two packages of the standard library."""
    library = Path(sysconfig.get_paths()["stdlib"])
    folder = tmp_path_factory.mktemp("text") / "code"
    for package in ("json", "email"):
        shutil.copytree(library / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def quickstart(tmp_path: Path, text: Path) -> Quickstart:
    return Quickstart(tmp_path, text)


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory, text: Path) -> tuple[Quickstart, list[dict[str, Any]]]:
    """A quickstart nobody interrupted, and all it said."""
    made = Quickstart(tmp_path_factory.mktemp("straight"), text)
    return made, made.finish()
