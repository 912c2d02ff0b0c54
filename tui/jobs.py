"""Other programs of ours: trainers and exports that outlive this one, and questions that are answered in JSON.

A trainer gets a session of its own and writes to a log, so that it goes on when the terminal is closed.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir, home, lock_holder
from ondevice.run.files import make_folder

__all__ = ["Job", "Jobs", "ask_json", "last_words"]

_TAIL = 4096
_BUSY = 7  # another trainer was faster, which is well


@dataclass
class Job:
    """A program that was started. ``run`` is where it will be seen to live; None for one that only ends."""

    what: str
    process: subprocess.Popen[bytes]
    log: Path
    run: Path | None = None
    began: float = field(default_factory=time.monotonic)
    lived: bool = False

    @property
    def under_way(self) -> bool:
        """Whether it is on its way: a trainer that was seen to hold its run is so no more."""
        if self.process.poll() is not None:
            return False
        self.lived = self.lived or (self.run is not None and lock_holder(RunDir(self.run)) is not None)
        return not self.lived


class Jobs:
    """What this terminal started and has not ended yet."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def start_trainer(self, run: RunDir) -> Job:
        """Goes on with a run. Raises OndeviceError where the system refuses."""
        return self.start(
            ["train", str(run.path), "--quiet"], what=run.name, log=run.logs / "trainer.log", run=run.path
        )

    def start(self, words: Sequence[str], *, what: str, log: Path, run: Path | None = None) -> Job:
        """``ondevice WORDS`` in a session of its own, its output appended to a log. Raises OndeviceError."""
        if run is not None and self.starting(run):
            raise OndeviceError(f"{what}: its trainer is starting already.")
        try:
            make_folder(log.parent)
            with open(log, "ab") as out:
                process = subprocess.Popen(
                    [sys.executable, "-m", "ondevice", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
        except OSError as error:
            raise OndeviceError(f"{what}: cannot be started ({error.strerror or error}).") from error
        job = Job(what, process, log, run)
        self._jobs.append(job)
        return job

    def starting(self, run: Path) -> bool:
        """Whether a trainer was started for it that does not hold it yet."""
        return any(job.run == run and job.under_way for job in self._jobs)

    @property
    def words(self) -> str:
        """What is under way: ``notes: its trainer starts (4 s)``."""
        for job in self._jobs:
            if job.under_way:
                doing = "its trainer starts" if job.run is not None else "under way"
                return f"{job.what}: {doing} ({time.monotonic() - job.began:.0f} s)"
        return ""

    def news(self) -> list[tuple[bool, str]]:
        """(went well, sentence) of what ended since the last call; of a trainer that ended as it should, nothing."""
        ended = [job for job in self._jobs if job.process.poll() is not None]
        self._jobs = [job for job in self._jobs if job not in ended]
        told = [(job.process.returncode, job) for job in ended]
        return [
            (code == 0, f"{job.what}: {last_words(job.log)}")
            for code, job in told
            if (code > 0 and code != _BUSY) or (code == 0 and job.run is None)
        ]

    def let_go(self) -> None:
        """They go on without us."""
        for job in self._jobs:
            if job.process.poll() is None:
                job.process.returncode = 0  # not ours any more; else Python warns that it still runs
        self._jobs = []


def last_words(log: Path) -> str:
    """The last line that a program wrote to its log."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return "ended without a word."
    return next((line.removeprefix("error: ") for line in reversed(lines) if line.strip()), "ended without a word.")


async def ask_json(*words: str, timeout_s: float = 600.0) -> dict[str, Any]:
    """What ``ondevice WORDS --json`` answers. Raises OndeviceError with its sentence; ends it when cancelled."""
    command = [sys.executable, "-m", "ondevice", *_with_json(words)]
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=_somewhere()
        )
    except OSError as error:
        raise OndeviceError(f"`ondevice {words[0]}` cannot be started ({error.strerror or error}).") from error
    try:
        return _answer(await asyncio.to_thread(_output, process, timeout_s), words[0], timeout_s)
    finally:
        if process.returncode is None:
            process.kill()  # the thread takes note of its end


def _with_json(words: Sequence[str]) -> list[str]:
    """The flag comes before ``--``, after which everything is a prompt."""
    at = words.index("--") if "--" in words else len(words)
    return [*words[:at], "--json", *words[at:]]


def _output(process: subprocess.Popen[bytes], timeout_s: float) -> bytes | None:
    with process:
        try:
            return process.communicate(timeout=timeout_s)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            return None


def _answer(out: bytes | None, command: str, timeout_s: float) -> dict[str, Any]:
    if out is None:
        raise OndeviceError(f"`ondevice {command}` did not answer within {timeout_s:.0f} s.")
    try:
        found = json.loads(out)
    except ValueError:
        raise OndeviceError(f"`ondevice {command}` ended without an answer.") from None
    if not isinstance(found, dict):
        raise OndeviceError(f"`ondevice {command}` gave an answer of another kind.")
    if isinstance(found.get("error"), str):
        raise OndeviceError(found["error"])
    return found


def _somewhere() -> Path:
    """A folder that exists: the one we were started in may be gone."""
    try:
        return Path.cwd()
    except OSError:
        return home().parent
