"""A real training whose saves meet failing writes: it goes on, tells of it, and ends with the same weights to the bit.

strace fails one write of a save, or all of a stretch as a disk does that is full for a while.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.audit import audit_file
from ondevice.run.directory import RunDir
from ondevice.run.store import Store
from ondevice.run.telemetry import launch_files, read_records

from .lab import Lab
from .rig import Tally
from .table import Row
from .truth import curve, fingerprint
from .victim import environment
from .victim_state import Verdict
from .wishes import WISHES, Wish, make, set_limits

__all__ = ["run"]

_STEPS, _SAVE_EVERY = 24, 6
_TRIALS = 12  # for each wish
_STRETCH = 40  # writes
_CALL = re.compile(r"(\d+) +write\((\d+<[^>]*>)")
_SAVE = "/checkpoints/.tmp-"


@dataclass(frozen=True)
class Life:
    """How a launch under strace ended, and the targets of its writes that failed."""

    code: int
    said: str
    failed: tuple[str, ...]


class Stage:
    """A run that was never launched, copied for every trial; ``weights`` and ``curve`` of an undisturbed one."""

    def __init__(self, lab: Lab, wish: Wish) -> None:
        self._run, self._folder = make(lab, wish, steps=_STEPS), lab.folder
        set_limits(self._run, save_every_steps=_SAVE_EVERY)
        run = self.fresh()
        life = self.launch(run)
        if life.code:
            raise RuntimeError(f"an undisturbed run failed: {life.said}")
        self.writes = self._writes_of_saves()
        self.weights, self.curve = self._learned(run), curve(run)

    def fresh(self) -> RunDir:
        """A copy, in the place of the last one."""
        path = self._run.path.with_name("copy")
        shutil.rmtree(path, ignore_errors=True)
        return RunDir(Path(shutil.copytree(self._run.path, path)))

    def launch(self, run: RunDir, *inject: str) -> Life:
        """A launch to its end under strace."""
        log = self._folder / "trace.log"
        strace = ["strace", "-f", "-y", "-qq", "--seccomp-bpf", "-o", str(log), "-e", "trace=write", *inject]
        words = [*strace, sys.executable, "-m", "tools.faults.victim_training", str(run.path)]
        env = environment() | {"ONDEVICE_HOME": str(self._folder / "home")}
        ended = subprocess.run(words, capture_output=True, text=True, check=False, env=env, timeout=600)
        lines = log.read_text("utf-8", "replace").splitlines()
        failed = tuple(match[2] for line in lines if "(INJECTED)" in line and (match := _CALL.match(line)))
        return Life(ended.returncode, ended.stderr, failed)

    def _writes_of_saves(self) -> list[int]:
        """Which write of its thread each write of a save was."""
        counts: Counter[str] = Counter()
        found = []
        for line in (self._folder / "trace.log").read_text("utf-8", "replace").splitlines():
            if match := _CALL.match(line):
                counts[match[1]] += 1
                if _SAVE in match[2]:
                    found.append(counts[match[1]])
        return found

    def _learned(self, run: RunDir) -> Any:
        return fingerprint(Store(run.checkpoints).open(_STEPS))

    def judge(self, run: RunDir, life: Life) -> Verdict:
        """Whether the run came to the same end, after a second launch where the first one gave up."""
        losses = [] if life.code == 0 or len(life.said.splitlines()) == 1 else [f"not a sentence: {life.said[-300:]}"]
        if life.code and (again := self.launch(run)).code:
            losses.append(f"the next launch fails as well: {again.said[-300:]}")
        try:
            if self._learned(run) != self.weights:
                return Verdict(losses, ["the weights differ from those of the undisturbed run"])
            losses += [fault for path in launch_files(run.telemetry) for fault in audit_file(path).faults]
            if not any("/telemetry/" in target for target in life.failed):
                losses += self._untold(run, life)
        except OndeviceError as error:
            losses.append(str(error))
        return Verdict(losses)

    def _untold(self, run: RunDir, life: Life) -> list[str]:
        losses = [] if curve(run) == self.curve else ["the curve differs from that of the undisturbed run"]
        told = [record for record in read_records(run.telemetry) if record["kind"] in ("note", "end", "order")]
        if _hit_save(life) and not any("checkpoints" in str(record) or "disk" in str(record) for record in told):
            losses.append("nobody was told of the failed save")
        return losses


def _hit_save(life: Life) -> bool:
    return any(_SAVE in target for target in life.failed)


def run(folder: Path, *, seed: int) -> list[Row]:
    """A run that saves while training waits, and one that saves in the background."""
    return [_row(wish, folder / wish.name, random.Random(f"{seed} {wish.name}")) for wish in (WISHES[0], WISHES[4])]


def _row(wish: Wish, folder: Path, dice: random.Random) -> Row:
    tally, hit = Tally(), 0
    with Lab(folder) as lab:
        stage = Stage(lab, wish)
        for number, nth in enumerate(dice.sample(stage.writes, _TRIALS)):
            until = f"..{nth + _STRETCH}" if number % 2 else ""
            error = "EIO" if number % 4 == 0 else "ENOSPC"
            run = stage.fresh()
            life = stage.launch(run, "-e", f"inject=write:error={error}:when={nth}{until}")
            hit += _hit_save(life)
            tally.add(f"{error} at write {nth}{until}", stage.judge(run, life), bool(_hit_save(life)))
    shutil.rmtree(folder)
    detail = f"{wish.name}: {hit} failed in a save, the others in telemetry or status; weights equal to the bit"
    return tally.row("failed writes in training", detail)
