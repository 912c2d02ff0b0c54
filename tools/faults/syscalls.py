"""Kill, EIO and ENOSPC at every file system call of everything a trainer does to its run's folder, through strace.

Each act of `victim` runs once undisturbed under strace, which lists its calls on files below the folder. Then, for
every call and every fault that fits it, the act runs again on a fresh copy with that one call killed or failed. The
folder must be old or new, never mixed; errors are told in a sentence; the act repeats and the run goes on.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from . import syscalls_full, syscalls_training
from .rig import Rig, Tally, Trial, missing_strace
from .table import Row
from .victim import ACTS
from .victim_state import Verdict

__all__ = ["injected", "run", "trials_of"]

_SHARE = 20  # one call of so many is tried where the campaign is not full


def trials_of(rig: Rig, act: str) -> list[Trial]:
    """Every fault at every call of an act."""
    return [Trial(act, call, fault) for call in rig.calls(act) for fault in call.faults()]


def injected(rig: Rig, trials: list[Trial]) -> dict[str, Tally]:
    """Tries them all; gives a tally for each kind of fault. One that missed its call is tried again."""
    tallies = {fault: Tally() for fault in ("signal=KILL", "error=EIO", "error=ENOSPC")}
    for trial in trials:
        judged = rig.judged(trial) or rig.judged(rig.found_again(trial))
        tally = tallies[trial.fault]
        if judged is None:
            tally.add(trial, Verdict(["the fault never hit its call"]), told=False)
        else:
            tally.add(trial, judged[0], told=judged[1])
    return tallies


def run(*, full: bool, folder: Path, seed: int) -> list[Row]:
    """Every call of every act, a sample of them where not ``full``; then full disks, then a real training."""
    missing = missing_strace()
    if missing:
        return [
            Row("system call faults", 0, 0, 0, f"skipped: {missing}"),
            *syscalls_full.run(full=full, folder=folder / "full", seed=seed),
        ]
    rig = Rig(folder / "syscalls")
    trials = [trial for act in ACTS for trial in trials_of(rig, act)]
    total = len(trials)
    if not full:
        trials = random.Random(seed).sample(trials, total // _SHARE)
    rows = [_row(fault, tally) for fault, tally in injected(rig, trials).items()]
    shutil.rmtree(folder / "syscalls")
    rows += syscalls_full.run(full=full, folder=folder / "full", seed=seed)
    return [*rows, *syscalls_training.run(folder / "training", seed=seed)] if full else rows


def _row(fault: str, tally: Tally) -> Row:
    if fault == "signal=KILL":
        return tally.row("SIGKILL at a system call", f"before calls of {len(ACTS)} acts that change something")
    detail = f"{len(ACTS)} acts; {tally.told} ended with an error in a sentence, the others got by without the call"
    return tally.row(f"{fault.removeprefix('error=')} at a system call", detail)
