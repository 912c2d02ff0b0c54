"""Made-up stories: a run directory with telemetry and nothing else that costs time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ondevice.cli.main import main
from ondevice.run.directory import RunDir, find_run

CONFIG = """
name = "told"
[data]
split = "hash:0.2"
[[data.sources]]
path = "north.txt"
document = "line"
[[data.sources]]
path = "south.txt"
document = "line"
[tokenizer]
kind = "byte"
[model]
layers = 1
width = 16
heads = 1
context = 32
[train]
steps = 8
batch = 2
lr = 3e-3
[eval]
count = 5
max_tokens = 128
panel = 3
panel_tokens = 8
[sample]
count = 2
max_new_tokens = 8
[fit]
micro_batch = 2
threads = 1
[limits]
min_free_disk_mb = 0
"""


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("report")
    for name in ("north", "south"):
        lines = [f"{name} {number} and {number * 7 % 13} {name}" for number in range(120)]
        (folder / f"{name}.txt").write_text("\n".join(lines), "utf-8")
    (folder / "told.toml").write_text(CONFIG, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONDEVICE_HOME", str(folder / "home"))
        patch.chdir(folder)
        assert main(["train", "told.toml", "--quiet"]) == 0
    yield folder


@pytest.fixture
def told(_trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A copy of a finished run, to change and to break."""
    shutil.copytree(_trained / "home", tmp_path / "home")
    monkeypatch.setenv("ONDEVICE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return find_run("told")


@pytest.fixture
def add_launch(told: RunDir) -> Callable[[list[dict[str, Any]]], None]:
    """Appends a launch that told these records, and died."""

    def add(records: list[dict[str, Any]]) -> None:
        number = told.next_launch()
        first = {"kind": "launch", "step": 0, "launch": number, "resumed_step": None, "steps": 10**6}
        lines = [json.dumps({"v": 1, "t": 1.9e9 + k, **each}) for k, each in enumerate([first, *records])]
        (told.telemetry / f"{number:04d}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")

    return add
