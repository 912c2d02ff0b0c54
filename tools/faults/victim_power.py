"""A trainer's writes without the training, on and on until the power is cut; tells its parent what is durable.

    python -m tools.faults.victim_power RUN SEED [--no-fsync]

One JSON line on stdout before an act, with ``begin``, and one after it, with ``done``: what was done must survive,
what was only begun may. ``--no-fsync`` turns fsync into nothing, to see that the cuts bite.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.config import write_limits
from ondevice.run.create import remove_run
from ondevice.run.directory import RunDir, RunLock
from ondevice.run.liveness import write_status
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.run.telemetry import TelemetryWriter

from .victim import make_run, save

__all__ = ["KEEP", "loss_of", "main"]

KEEP = 4
_ACTS = {"save": 8, "prune": 3, "lighten": 2, "pin": 2, "unpin": 2, "status": 2, "limits": 1, "sync": 2, "other run": 1}


def loss_of(launch: int, number: int) -> float:
    """What a line of the story must say."""
    return random.Random(launch * 1_000_003 + number).random()


def tell(**words: Any) -> None:
    """``t`` is `time.monotonic_ns`, the same clock in every process."""
    os.write(1, json.dumps({**words, "t": time.monotonic_ns()}).encode() + b"\n")


class Trainer:
    """Goes on from the newest checkpoint of a run."""

    def __init__(self, run: RunDir, dice: random.Random) -> None:
        self.run, self._dice = run, dice
        self._lock = RunLock(run)
        self._store = Store(run.checkpoints)
        newest, _ = self._store.latest(complete=True)
        self._step = newest.step if newest else 0
        self._launch = run.next_launch()
        self._story = TelemetryWriter(run.telemetry, self._launch)
        self._lines = self._turn = 0

    def live(self) -> None:
        """Until killed, or until the disk is gone."""
        acts: dict[str, Callable[[], None]] = {
            "save": self._save,
            "prune": self._prune,
            "lighten": self._lighten,
            "pin": lambda: self._pin("best"),
            "unpin": lambda: self._pin(None),
            "status": self._status,
            "limits": self._limits,
            "sync": self._sync,
            "other run": self._other_run,
        }
        while True:
            self._turn += 1
            for _ in range(self._dice.randrange(4)):
                self._story.write("step", self._lines, loss=loss_of(self._launch, self._lines))
                self._lines += 1
            name = "save" if self._step < 3 else self._dice.choices(list(_ACTS), list(_ACTS.values()))[0]
            acts[name]()

    def _sync(self) -> None:
        tell(begin="sync")
        position = self._story.position
        self._story.sync()
        tell(done="sync", position=position)

    def _save(self) -> None:
        self._sync()
        step = self._step + 1
        tell(begin="save", step=step)
        sha256 = save(self._store, step, telemetry=self._story.position)
        tell(done="save", step=step, sha256=sha256)
        self._store.open(step, from_disk=True)
        self._step = step

    def _prune(self) -> None:
        keep = {*self._store.complete_steps()[-KEEP:], *self._store.pins()}
        going = [step for step in self._store.steps() if step not in keep]
        tell(begin="prune", steps=going)
        tell(done="prune", steps=self._store.prune(keep))

    def _lighten(self) -> None:
        older = self._store.complete_steps()[:-2]
        for step in older[:1]:
            tell(begin="lighten", step=step)
            tell(done="lighten", step=step, light=self._store.lighten(step))

    def _pin(self, reason: str | None) -> None:
        step = self._dice.choice(self._store.steps() if reason else [*self._store.pins(), 0])
        if step:
            tell(begin="pin", step=step, reason=reason)
            self._store.pin(step, reason)
            tell(done="pin", step=step, reason=reason)

    def _status(self) -> None:
        tell(begin="status", turn=self._mark)
        write_status(self.run, {"step": self._step, "turn": self._mark}, durable=True)
        tell(done="status", turn=self._mark)

    def _limits(self) -> None:
        keep = self._dice.randrange(2, 100)
        tell(begin="limits", keep=keep)
        write_limits(self.run.limits, Limits(keep_last=keep))
        tell(done="limits", keep=keep)

    def _other_run(self) -> None:
        """Makes a run and removes one, so that both may be cut."""
        path = self.run.path.with_name(f"other-{self._launch}-{self._turn}")
        tell(begin="create", name=path.name)
        made = make_run(path)
        tell(done="create", name=path.name)
        if self._dice.random() < 0.7:
            tell(begin="remove", name=path.name)
            remove_run(made)
            tell(done="remove", name=path.name)

    @property
    def _mark(self) -> str:
        return f"{self._launch} {self._turn}"


def main(words: list[str]) -> int:
    """Lives; gives the exit code of the error that ended it."""
    if "--no-fsync" in words:
        os.fsync = lambda fd: None
    try:
        Trainer(RunDir(Path(words[0])), random.Random(words[1])).live()
    except OndeviceError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
