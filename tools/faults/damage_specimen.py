"""What damage is done to: a tiny run that was really trained, in three launches of which one was killed.

Limits and pins were changed by letters, one step was saved twice, scores were given. Beside it: what the run looked
like after each launch, and another run with another dataset, to take stale and foreign files from.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ondevice.run import control
from ondevice.run.config import parse_config
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.quality import write_quality
from ondevice.run.store import Store

__all__ = ["Specimen", "at_home", "go_on", "make_specimen"]

_WORDS = [
    "moth",
    "calm",
    "sand",
    "warm",
    "dusk",
    "echo",
    "fern",
    "glow",
    "iris",
    "jazz",
    "kite",
    "lamp",
]  # of one length
_CONFIG = """
[data]
split = "hash:0.1"
chunk_tokens = 1024
[tokenizer]
kind = "char"
[model]
layers = 1
width = 16
heads = 2
context = 16
dropout = 0.1
[train]
batch = 4
lr = 3e-3
warmup_steps = 4
precision = "fp32"
steps = 24
[eval]
count = 4
max_tokens = 128
[sample]
count = 2
max_new_tokens = 4
[fit]
micro_batch = 4
threads = 1
[limits]
min_free_disk_mb = 0
save_every_steps = 4
keep_last = 3
"""


@dataclass(frozen=True)
class Specimen:
    """``home`` holds the run ``own`` and its dataset; ``other`` another home with the run ``other``; ``past`` are
    homes as they were after each launch but the last."""

    home: Path
    other: Path
    past: tuple[Path, ...]

    @property
    def run(self) -> RunDir:
        return RunDir(self.home / "runs" / "own")


@contextmanager
def at_home(home: Path) -> Iterator[None]:
    """Runs and datasets are looked for there."""
    before = os.environ.get("ONDEVICE_HOME")
    os.environ["ONDEVICE_HOME"] = str(home)
    try:
        yield
    finally:
        if before is None:
            del os.environ["ONDEVICE_HOME"]
        else:
            os.environ["ONDEVICE_HOME"] = before


class _Killed(BaseException):
    """Ends a launch without a word."""


class _Silent:
    def status(self, status: dict[str, Any]) -> None:
        pass

    def say(self, text: str) -> None:
        pass


def make_specimen(folder: Path) -> Specimen:
    """Trains both runs, in a few seconds."""
    specimen = Specimen(folder / "home", folder / "other", (folder / "past-1", folder / "past-2"))
    with at_home(specimen.home):
        _train_own(_make(folder, "own", seed=7, micro_batch=4), specimen)
    with at_home(specimen.other):
        run = _make(folder, "other", seed=8, micro_batch=2)
        control.send(run, "limit", {"save_every_s": 60.0}, sender="other")
        _launch(run, stop_at=10)
        control.send(run, "pin", {"step": 8, "reason": "of the other run"}, sender="other")
        _launch(run)
        write_quality(run.evals, {16: 0.75, 24: 0.5})
    return specimen


def _train_own(run: RunDir, specimen: Specimen) -> None:
    home = run.path.parent.parent
    control.send(run, "limit", {"save_every_s": 120.0}, sender="test")
    _launch(run, stop_at=10)
    write_quality(run.evals, {8: 0.25})
    shutil.copytree(home, specimen.past[0])
    control.send(run, "pin", {"step": 8, "reason": "a person wants it"}, sender="test")
    control.send(run, "limit", {"save_every_s": 90.0}, sender="test")
    _launch(run, kill_at=18)
    shutil.copytree(home, specimen.past[1])
    shutil.rmtree(Store(run.checkpoints).path(16))  # it is saved again by the last launch
    control.send(run, "pin", {"step": 10, "reason": "and this one"}, sender="test")
    control.send(run, "limit", {"max_rss_mb": 100_000.0}, sender="test")
    _launch(run)
    write_quality(run.evals, {8: 0.25, 20: 0.5})


def _make(folder: Path, name: str, *, seed: int, micro_batch: int) -> RunDir:
    from ondevice.train.prepare import make_run, prepare
    from ondevice.train.wish import make_dataset

    text = folder / f"{name}.txt"
    folder.mkdir(parents=True, exist_ok=True)
    dice = random.Random(seed)
    words = _WORDS if name == "own" else [word.translate(str.maketrans("aeiou", "12345")) for word in _WORDS]
    text.write_text("\n".join(" ".join(dice.choices(words, k=8)) for _ in range(200)), "utf-8")
    source = f'[[data.sources]]\npath = "{text}"\nname = "{name}"\ndocument = "line"\n'
    changes = (f"train.seed={seed}", f"fit.micro_batch={micro_batch}")
    config = replace(parse_config(_CONFIG + source, where="damage", base=folder, changes=changes), name=name)
    dataset = make_dataset(config)
    return make_run(config, prepare(config, dataset, cores=1, android=False, rate=1000.0), dataset)


def go_on(run: RunDir) -> None:
    """A launch to the end."""
    _launch(run)


def _launch(run: RunDir, *, stop_at: int | None = None, kill_at: int | None = None) -> None:
    from ondevice.train.launch import make_loop
    from ondevice.train.signals import Signals

    class Watched(Signals):
        """Asks to leave, or ends everything, at the first safe point after a step."""

        @property
        def received(self) -> str:  # type: ignore[override]
            step = loop.state.step if loop else 0
            if kill_at is not None and step >= kill_at:
                raise _Killed
            return "SIGTERM" if stop_at is not None and step >= stop_at else ""

        @received.setter
        def received(self, value: str) -> None:
            pass

    loop = None
    lock = RunLock(run)
    try:
        loop = make_loop(run, display=_Silent(), signals=Watched())
        with suppress(_Killed):
            loop.run_to_end()
    finally:
        if loop is not None:
            loop.telemetry.close()
        lock.release()
