"""One tiny run, trained once for all tests of this folder, with several checkpoints."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ondevice.cli.main import main
from ondevice.run.directory import RunDir, find_run

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "another", "dog", "run", "home", "very", "early"]
CONFIG = """
name = "tiny"
[data]
split = "hash:0.2"
[[data.sources]]
path = "first.txt"
document = "line"
[[data.sources]]
path = "code"
language = "python"
[tokenizer]
kind = "byte"
[model]
layers = 2
width = 32
heads = 2
context = 64
[train]
steps = 12
batch = 4
lr = 3e-3
warmup_steps = 2
precision = "fp32"
[eval]
count = 4
max_tokens = 512
[sample]
count = 0
[fit]
micro_batch = 4
threads = 1
[limits]
min_free_disk_mb = 0
keep_last = 20
save_every_s = 0.01
"""


def write_texts(folder: Path) -> None:
    rng = random.Random(7)
    lines = [" ".join(rng.choices(WORDS, k=14)) for _ in range(240)]
    (folder / "first.txt").write_text("\n".join(lines), "utf-8")
    (folder / "code").mkdir()
    for number in range(30):
        body = "".join(
            f"def part_{number}_{k}(value, other):\n    total = value * {k} + other\n    return total\n\n\n"
            for k in range(6)
        )
        (folder / "code" / f"m{number}.py").write_text(body, "utf-8")
    (folder / "tiny.toml").write_text(CONFIG, "utf-8")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("study")
    write_texts(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_HOME", str(folder / "home"))
        patch.chdir(folder)
        patch.setattr("ondevice.train.saving.SHARE", 1e6)  # a checkpoint every step
        assert main(["train", "tiny.toml", "--quiet"]) == 0
    yield folder


@pytest.fixture
def own(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A copy of the finished run, to change and to break."""
    shutil.copytree(trained / "home", tmp_path / "home")
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return find_run("tiny")
