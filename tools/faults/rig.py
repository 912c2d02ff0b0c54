"""Tries one fault at one moment of an act, on a copy of a run's folder, and judges what is left.

An original is prepared once; `victim` works on a fresh copy of it in a process of its own, maybe under strace.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from .table import Row
from .victim import environment, prepare
from .victim_state import State, Verdict, goes_on, judge, read_state

__all__ = ["Call", "Rig", "Tally", "Trial", "missing_strace"]

CHANGING = ("mkdir", "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "unlink", "unlinkat")
CHANGING += ("rmdir", "ftruncate", "utimensat")
READING = ("read", "pread64", "close", "newfstatat", "fstat", "stat", "lstat", "statx", "getdents64", "flock", "lseek")
FULL = frozenset({"mkdir", "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "ftruncate"})
_MARKS = ("access", "faccessat", "faccessat2")
_LINE = re.compile(r"\d+ +(\w+)\((.*)")


@dataclass(frozen=True)
class Call:
    """The ``nth`` call of a name since the process began, of which ``rank`` were in the act before it.

    ``creates`` for an open that may make a file.
    """

    name: str
    nth: int
    rank: int
    text: str
    creates: bool = False

    @property
    def changes(self) -> bool:
        return self.creates or self.name in CHANGING

    def faults(self) -> Iterator[str]:
        """What to inject: a kill is the same at any call until the next change."""
        yield "error=EIO"
        if self.changes:
            yield "signal=KILL"
        if self.creates or self.name in FULL:
            yield "error=ENOSPC"


@dataclass(frozen=True)
class Trial:
    """One fault at one call of an act."""

    act: str
    call: Call
    fault: str

    def __str__(self) -> str:
        return f"{self.act}: {self.fault} at {self.call.name} #{self.call.nth} {self.call.text}"


@dataclass
class Tally:
    """What the trials of a kind of fault came to; ``words`` explains the first losses."""

    trials: int = 0
    losses: int = 0
    silent: int = 0
    told: int = 0
    words: list[str] = field(default_factory=list)

    def add(self, trial: object, verdict: Verdict, told: bool) -> None:
        self.trials += 1
        self.losses += bool(verdict.losses)
        self.silent += bool(verdict.silent)
        self.told += told
        self.words += [f"{trial}: {word}" for word in (*verdict.losses, *verdict.silent)]

    def row(self, part: str, detail: str) -> Row:
        return Row(part, self.trials, self.losses, self.silent, "\n".join([detail, *self.words[:20]]))


@cache
def missing_strace() -> str:
    """Why strace cannot inject faults here; empty where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    words = ["strace", "-f", "-qq", "-o", os.devnull, "-e", "inject=fsync:error=EIO", sys.executable, "-c", ""]
    found = subprocess.run(words, capture_output=True, text=True, check=False)
    return "" if found.returncode == 0 else f"strace may not trace here ({found.stderr.strip()[-100:]})"


class Rig:
    """A folder with an original, and copies of it that are tried and thrown away."""

    def __init__(self, folder: Path) -> None:
        self.original, self._copy, self._log = folder / "original", folder / "copy", folder / "trace.log"
        shutil.rmtree(self.original, ignore_errors=True)
        self.original.mkdir(parents=True)
        prepare(self.original)
        self.old = read_state(self.original)
        self._new: dict[str, State] = {}

    def fresh(self) -> Path:
        """A new copy of the original, in the place of the last one."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self.original, self._copy)
        return self._copy

    def new(self, act: str) -> State:
        """The state after the act."""
        if act not in self._new:
            root = self.fresh()
            assert self.start(act, root).returncode == 0
            self._new[act] = read_state(root)
        return self._new[act]

    def start(
        self, act: str, root: Path, *before: str, options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Runs the victim, maybe under another program."""
        words = [*before, sys.executable, "-B", "-s", "-m", "tools.faults.victim", act, str(root), *options]
        return subprocess.run(words, capture_output=True, text=True, check=False, env=environment(), timeout=60)

    def calls(self, act: str) -> list[Call]:
        """The calls of an act on files below its folder, in order."""
        root = self.fresh()
        strace = self._strace("openat", *CHANGING, *READING)
        assert self.start(act, root, *strace, "-y", "--seccomp-bpf").returncode == 0
        return [call for call in _calls(self._log.read_text("utf-8", "replace")) if str(root) in call.text]

    def found_again(self, trial: Trial) -> Trial:
        """The same call, counted anew: the start of a process changes with Python's caches."""
        same = (call for call in self.calls(trial.act) if (call.name, call.rank) == (trial.call.name, trial.call.rank))
        return replace(trial, call=next(same, trial.call))

    def judged(self, trial: Trial) -> tuple[Verdict, bool] | None:
        """Tries; gives the verdict and whether the victim told of an error, None if the fault hit another call."""
        new, root = self.new(trial.act), self.fresh()
        inject = f"inject={trial.call.name}:{trial.fault}:when={trial.call.nth}"
        quick = () if "KILL" in trial.fault else ("--seccomp-bpf",)  # which cannot send signals
        ended = self.start(trial.act, root, *self._strace(trial.call.name), "-e", inject, *quick)
        if not self._was_hit(trial, ended.returncode):
            return None
        return self.verdict(trial.act, root, new, ended), ended.returncode > 0

    def _strace(self, *names: str) -> tuple[str, ...]:
        """A trace of these calls and of the marks only: others cost less time."""
        return "strace", "-f", "-qq", "-o", str(self._log), "-e", "trace=" + ",".join(f"?{n}" for n in _MARKS + names)

    def verdict(self, act: str, root: Path, new: State, ended: subprocess.CompletedProcess[str]) -> Verdict:
        """What a victim left, and whether it can go on from there."""
        verdict = judge(self.old, new, read_state(root), ended=ended.returncode, said=ended.stderr)
        verdict.losses += goes_on(act, root, new)
        return verdict

    def _was_hit(self, trial: Trial, ended: int) -> bool:
        log = self._log.read_text("utf-8", "replace")
        if "KILL" in trial.fault:
            return ended == -9 and "/.begin" in log and "/.end" not in log
        begin, hit, end = log.find("/.begin"), log.find("(INJECTED)"), log.find("/.end")
        return 0 <= begin < hit and (hit < end or end < 0)


def _calls(log: str) -> Iterator[Call]:
    """Counts from the start of the process, gives those between the marks."""
    counts: Counter[str] = Counter()
    ranks: Counter[str] = Counter()
    inside = False
    for line in log.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        name, text = match[1], match[2]
        counts[name] += 1
        if "/.begin" in text or "/.end" in text:
            inside = "/.begin" in text
        elif inside:
            yield Call(name, counts[name], ranks[name], text, creates=name == "openat" and "O_CREAT" in text)
            ranks[name] += 1
