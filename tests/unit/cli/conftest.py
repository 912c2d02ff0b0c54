"""Commands called in this process, and one tiny run that was trained once for the whole session."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ondevice.cli.main import main
from tests.tiny import word_lines

TINY = """
name = "tiny"
[data]
split = "hash:0.1"
[[data.sources]]
path = "words.txt"
document = "line"
[tokenizer]
kind = "byte"
[model]
layers = 2
width = 32
heads = 2
context = 32
[train]
steps = 12
batch = 4
lr = 3e-3
warmup_steps = 2
precision = "fp32"
[eval]
count = 3
max_tokens = 512
[sample]
count = 1
max_new_tokens = 8
[fit]
micro_batch = 4
threads = 1
[limits]
min_free_disk_mb = 0
"""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one object on standard output."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one sentence on standard error."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("error: ")


Call = Callable[..., Result]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """``call("status", "tiny")`` -> how it ended."""

    def run(*words: object) -> Result:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as leaving:  # --help leaves through argparse
            code = int(leaving.code or 0)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def write_texts(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words.txt").write_text(word_lines(random.Random(7)), "utf-8")
    (folder / "tiny.toml").write_text(TINY, "utf-8")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with ``words.txt`` and ``tiny.toml``; ``home`` below it is empty."""
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    write_texts(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home with the finished run ``tiny``, for tests that only read; and the folder of its text."""
    folder = tmp_path_factory.mktemp("trained")
    write_texts(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_HOME", str(folder / "home"))
        patch.chdir(folder)
        assert main(["train", "tiny.toml", "--quiet"]) == 0
    yield folder


@pytest.fixture
def reading(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished run's own home; leave it as it is."""
    monkeypatch.setenv("ONDEVICE_HOME", str(trained / "home"))
    monkeypatch.chdir(trained)
    return trained / "home"


@pytest.fixture
def own(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run's home, to change and to break."""
    shutil.copytree(trained / "home", tmp_path / "home")
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(trained)
    return tmp_path / "home"


@pytest.fixture
def fresh(place: Path, call: Call) -> Path:
    """A run ``tiny`` that is made and was never started."""
    from ondevice.run.config import load_config
    from ondevice.train.prepare import make_run, prepare
    from ondevice.train.wish import make_dataset

    config = load_config("tiny.toml")
    dataset = make_dataset(config)
    return make_run(config, prepare(config, dataset, cores=1, android=False, rate=1000.0), dataset).path
