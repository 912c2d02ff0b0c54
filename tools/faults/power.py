"""Power cuts at random instants of a trainer's writes, on real ext4 and xfs.

`victim_power` writes to a disk that `power_disk` cuts off; what it had called durable must be there after the restart,
and the next life goes on from it. A control experiment without fsync shows that the cuts bite.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from ondevice.run.directory import RunDir

from .power_disk import FILE_SYSTEMS, Disk, missing
from .power_history import History
from .table import Row
from .victim import environment, make_run
from .victim_state import Verdict

__all__ = ["Cuts", "run"]

_TRIALS = {True: 150, False: 8}  # for each file system
_CONTROL = {True: 20, False: 4}
_DISK_LIVES = 20  # cuts of one disk before it is made anew
_OPTIONS = {"ext4": ("", "noauto_da_alloc", "data=writeback,noauto_da_alloc"), "xfs": ("",)}
_MOST_LINES, _MOST_WAIT_S = 120, 0.004


@dataclass
class Cuts:
    """What the cuts of one file system came to; ``acts`` counts what each cut interrupted."""

    trials: int = 0
    losses: int = 0
    silent: int = 0
    acts: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict, act: str) -> None:
        self.trials += 1
        self.losses += bool(verdict.losses)
        self.silent += bool(verdict.silent)
        self.acts[act] += 1
        self.words += [f"cut {self.trials} in {act}: {word}" for word in (*verdict.losses, *verdict.silent)]


def one_life(disk: Disk, history: History, dice: random.Random, *, fsync: bool = True) -> tuple[Verdict, str]:
    """A victim writes, the power goes at a random instant, the disk comes back. Gives the verdict and what was cut."""
    run = RunDir(disk.path / "run")
    words = [sys.executable, "-B", "-s", "-m", "tools.faults.victim_power", str(run.path), str(dice.random())]
    words += [] if fsync else ["--no-fsync"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as child:
        assert child.stdout is not None and child.stderr is not None
        try:
            for _ in range(dice.randrange(1, _MOST_LINES)):
                line = child.stdout.readline()
                if not line:
                    said = child.stderr.read().decode()
                    return Verdict([f"the next life ended by itself: {said[-300:]}"]), "start"
                history.heard(line)
            time.sleep(dice.uniform(0, _MOST_WAIT_S))
            cut_ns = time.monotonic_ns()
            disk.cut()
        finally:
            child.kill()
        for line in child.stdout.read().splitlines(keepends=True):
            if line.endswith(b"\n"):
                history.heard(line, cut_ns=cut_ns)
    disk.restart()
    return history.kept(run), history.act


def cuts(kind: str, folder: Path, *, trials: int, dice: random.Random) -> Cuts:
    """A disk is cut several times, each life going on from what the last one left; after a loss it is made anew."""
    result = Cuts()
    while result.trials < trials:
        with Disk(folder, kind, dice.choice(_OPTIONS[kind])) as disk:
            make_run(disk.path / "run")
            history = History()
            for _ in range(min(_DISK_LIVES, trials - result.trials)):
                verdict, act = one_life(disk, history, dice)
                result.add(verdict, act)
                if verdict.losses or verdict.silent:
                    break
    return result


def control(kind: str, folder: Path, *, trials: int, dice: random.Random) -> Cuts:
    """The same with fsync turned into nothing: a fresh disk for every cut."""
    result = Cuts()
    for _ in range(trials):
        with Disk(folder, kind) as disk:
            make_run(disk.path / "run")
            result.add(*one_life(disk, History(), dice, fsync=False))
    return result


def run(*, full: bool, folder: Path, seed: int) -> list[Row]:
    """At least 100 cuts of each file system where ``full``."""
    return [_row(kind, full, folder, random.Random(f"{seed} {kind}")) for kind in FILE_SYSTEMS]


def _row(kind: str, full: bool, folder: Path, dice: random.Random) -> Row:
    part = f"power cut on {kind}"
    if missing(kind):
        return Row(part, 0, 0, 0, f"skipped: {missing(kind)}")
    made = cuts(kind, folder, trials=_TRIALS[full], dice=dice)
    blind = control(kind, folder, trials=_CONTROL[full], dice=dice)
    interrupted = ", ".join(f"{act} {count}" for act, count in made.acts.most_common())
    details = [f"cut in: {interrupted}", f"without fsync: {blind.losses} of {blind.trials} trials lost"]
    if not blind.losses:
        details.append("the cuts do not bite, so this part proves nothing")
    losses = made.losses + (not blind.losses)
    return Row(part, made.trials, losses, made.silent, "\n".join([*details, *made.words[:20]]))
