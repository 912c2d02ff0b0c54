"""The terminal UI in a real terminal, on a real trainer: watched, paused, asked, left, killed, and brought back.

Takes about a minute, most of which the trainer's starts take.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ondevice.run.directory import RunDir, lock_holder
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.telemetry import read_records

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux")]

STEPS = 900
CHANGES = (
    "tokenizer.kind=byte", "model.layers=1", "model.width=32", "model.heads=2", "model.context=64",
    f"train.steps={STEPS}", "train.batch=4", "train.precision=fp32", "fit.threads=1", "eval.count=3",
    "eval.max_tokens=1024", "sample.count=0", "sample.max_new_tokens=12", "limits.save_every_s=0.5",
    "limits.min_free_disk_mb=0", "limits.duty_max=0.3",
)  # fmt: skip


class Terminal:
    """A tmux session of its own, with a terminal of 100 x 30."""

    def __init__(self, home: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tui-"))  # a socket's path must be short
        self._env = os.environ | {
            "ONDEVICE_HOME": str(home), "TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8",
            "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
        }  # fmt: skip

        self._tmux(
            "new-session", "-d", "-s", "keep", "cat"
        )  # a server without sessions ends, and the next one races it

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-S", str(self.folder / "s"), "-f", "/dev/null", *words]
        done = subprocess.run(command, capture_output=True, text=True, env=self._env, cwd=Path.cwd())
        return done.stdout

    def open(self, *words: str) -> None:
        self._tmux("new-session", "-d", "-s", "tui", "-x", "100", "-y", "30", sys.executable, "-m", "tui", *words)

    def keys(self, *keys: str) -> None:
        self._tmux("send-keys", "-t", "tui", *keys)

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-t", "tui", "-l", text)

    @property
    def text(self) -> str:
        return self._tmux("capture-pane", "-t", "tui", "-p")

    def sees(self, *words: str, within_s: float = 40.0) -> str:
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            text = self.text
            if all(word in text for word in words):
                return text
            time.sleep(0.2)
        raise AssertionError(f"{words} not in:\n{self.text}")

    @property
    def is_open(self) -> bool:
        return "tui:" in self._tmux("list-sessions")

    def close(self) -> None:
        self._tmux("kill-server")
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path / "home")
    yield terminal
    terminal.close()


def wait_for(what: Callable[[], object], within_s: float = 60.0) -> None:
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    """A run whose trainer was just started from a shell."""
    text = tmp_path / "code"
    library = Path(sysconfig.get_paths()["stdlib"])
    shutil.copytree(library / "json", text, ignore=shutil.ignore_patterns("__pycache__"))
    words = [sys.executable, "-m", "ondevice", "train", "--data", str(text), "--name", "notes", "--quiet"]
    env = os.environ | {
        "ONDEVICE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
    }  # fmt: skip
    run = RunDir(tmp_path / "home" / "runs" / "notes")
    with subprocess.Popen([*words, *(word for change in CHANGES for word in ("--set", change))], env=env) as trainer:
        try:
            wait_for(lambda: lock_holder(run) or trainer.poll() is not None)
            yield run
        finally:
            trainer.kill()
            if lock_holder(run) is not None:
                os.kill(int(read_status(run)["pid"]), signal.SIGKILL)


def test_a_run_is_watched_paused_asked_killed_and_brought_back(terminal: Terminal, run: RunDir) -> None:
    terminal.open(str(run.path))
    terminal.sees("notes", "launch 1", "train")
    terminal.keys("p")
    terminal.sees("pause: accepted", "waiting", "paused by ondevice-tui")
    assert read_liveness(run).state == "waiting"

    terminal.keys("r")
    terminal.sees("resume: accepted", "running")
    paused_at = int(read_status(run)["step"])
    wait_for(lambda: int(read_status(run)["step"]) > paused_at)
    terminal.keys("p")
    terminal.sees("pause: accepted", "waiting")

    terminal.keys("w")
    terminal.sees("What shall notes go on from?")
    terminal.type("def dumps(")
    terminal.keys("Enter")
    terminal.sees("sample: accepted")
    terminal.keys("Right")
    terminal.sees("def dumps(", "asked for")
    samples = [record for record in read_records(run.telemetry) if record["kind"] == "sample"]
    assert [sample["prompt"] for sample in samples] == ["def dumps("]

    terminal.keys("q")
    wait_for(lambda: not terminal.is_open)
    assert read_liveness(run).state == "waiting", "leaving the terminal UI leaves the trainer alone"

    terminal.open(str(run.path))
    terminal.sees("notes", "waiting")
    killed = int(read_status(run)["pid"])
    os.kill(killed, signal.SIGKILL)
    terminal.sees("killed", "r goes on; killed")

    terminal.keys("r")
    terminal.sees("its trainer starts")
    wait_for(lambda: lock_holder(run))
    terminal.sees("launch 2")
    pid = int(read_status(run)["pid"])
    assert pid != killed and os.getsid(pid) == pid, "a session of its own"
    terminal.keys("q")
    wait_for(lambda: not terminal.is_open)
    assert lock_holder(run) is not None, "the trainer outlives the terminal UI that started it"

    terminal.open(str(run.path))
    terminal.sees("finished", f"step {STEPS:,} of {STEPS:,}", "survived 1 kill", within_s=150)
    assert read_liveness(run).state == "finished"
    assert (run.logs / "trainer.log").exists()
