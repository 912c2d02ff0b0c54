"""What the world does to a trainer besides killing it: no memory, no disk, a clock that jumps, a twin, a deep sleep.

After each, the run must go on and end as the undisturbed one did, to the bit.
"""

from __future__ import annotations

import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ondevice.run import control
from ondevice.run.directory import RunDir
from ondevice.run.liveness import read_liveness
from ondevice.run.telemetry import read_records

from .board import Phase
from .lab import Lab, Life
from .marks import clock_of
from .scarce import NoRoot, memory_cgroup, oom_kills, small_disk
from .table import Row
from .truth import Truth, learn
from .wishes import WISHES, make, set_limits
from .witness import Witness

__all__ = ["OUT_OF_MEMORY", "World", "run"]

KEEP_LAST = 2
OUT_OF_MEMORY = (Phase.STEP, Phase.SAVE, Phase.PROMOTION, Phase.PRUNE)
DAY_NS = 24 * 3600 * 10**9
_SOON_S = 30.0


def run(*, full: bool, folder: Path, seed: int) -> Iterator[Row]:
    """A row for each kind of trouble; kinds that need root are left out without it, and the row says so."""
    with Lab(folder / "world") as lab:
        world = World(lab, rng=random.Random(seed), steps=150 if full else 90)
        times = 5 if full else 1
        yield world.row("out of memory", OUT_OF_MEMORY * times, world.out_of_memory)
        yield world.row("disk full for an hour", range(times), world.disk_full)
        yield world.row("clock jumps", range(times), world.clock_jumps)
        yield world.row("two trainers at once", range(2 * times), world.two_trainers)
        yield world.row("frozen process", range(2 * times), world.frozen)


@dataclass
class World:
    """One configuration and its truth; every trial runs a fresh copy."""

    lab: Lab
    rng: random.Random
    steps: int = 150
    truth: Truth = field(init=False)
    fresh: Path = field(init=False)
    witnesses: list[Witness] = field(default_factory=list)

    def __post_init__(self) -> None:
        original = make(self.lab, WISHES[0], steps=self.steps)
        set_limits(original, keep_last=KEEP_LAST, save_every_steps=3, fixed_fit=True)
        self.fresh = self.lab.folder / "fresh-world"
        shutil.copytree(original.path, self.fresh)
        self.truth = learn(self.lab, original)

    def row(self, name: str, trials: Iterable[object], trial: Callable[..., list[str]]) -> Row:
        """Runs the trials; each gives its faults."""
        faults: list[str] = []
        done, before = 0, len(self.witnesses)
        detail = "went on, and ended as without it"
        try:
            for each in trials:
                faults += _patiently(trial, each)
                done += 1
        except NoRoot as error:
            detail = f"left out: {error}"
        silent = sum(witness.silent for witness in self.witnesses[before:])
        return Row(name, done, len(faults), silent, "\n".join(faults[:5]) or detail)

    def copy(self, folder: Path | None = None) -> tuple[RunDir, Witness]:
        """A fresh run below a folder, and who looks at it; every other one saves in the background."""
        number = len(self.witnesses)
        run = RunDir((folder or self.lab.folder / "home" / "runs") / f"run-{number}")
        shutil.copytree(self.fresh, run.path)
        set_limits(run, save_in_background=number % 2 == 1)
        self.witnesses.append(Witness(run, self.truth, KEEP_LAST))
        return run, self.witnesses[-1]

    def _finishes(self, life: Life, witness: Witness) -> list[str]:
        """Faults once this life ended by itself."""
        result = life.end()
        if result.get("outcome") != "finished":
            return [f"did not go on: {result}"]
        return witness.look(self.lab.board.committed) + self.truth.differs_at_end(witness.run)

    def _reached(self, phase: Phase, entries: int) -> None:
        _until(lambda: self.lab.board.entries(phase) >= entries, f"{phase.name} {entries} was never entered")

    def out_of_memory(self, phase: Phase) -> list[str]:
        """The kernel ends the victim for want of memory, in that phase; then it goes on without the limit."""
        run, witness = self.copy()
        entry = self.rng.randint(2, 5)
        with memory_cgroup(limit_mb=256) as cgroup:
            result = self.lab.begin(run, hog=(phase, entry), cgroup=cgroup).end()
            if result["status"] != -signal.SIGKILL or not oom_kills(cgroup):
                return [f"the kernel did not end it: {result}"]
        faults = witness.look(self.lab.board.committed)
        return faults + self._finishes(self.lab.begin(run), witness)

    def disk_full(self, _: object) -> list[str]:
        """No room for a save during an hour of the victim's time; it waits, tells so, and goes on when there is."""
        with small_disk(self.lab.folder / "small", size_mb=12) as disk:
            run, witness = self.copy(disk.folder)
            life = self.lab.begin(run, hurry=2000.0)
            self._reached(Phase.STEP, 20 + self.rng.randint(0, 9))
            disk.fill(but_mb=0.7)
            _until(lambda: self.lab.board.slept_ns >= 3600 * 10**9 or life.gone(), "it did not wait for an hour")
            seen = read_liveness(run, now=time.time() + self.lab.board.slept_ns / 1e9).state
            faults = [] if seen == "waiting" else [f"it is shown as {seen}, not as waiting"]
            faults += witness.look(self.lab.board.committed)
            disk.clear()
            waits = [record.get("why") for record in _records(run) if record["kind"] == "order"]
            faults += [] if any("disk full" in str(why) for why in waits) else ["telemetry does not say why it waits"]
            return faults + self._finishes(life, witness)

    def clock_jumps(self, _: object) -> list[str]:
        """The clock goes a day forwards, then two back, while the run is held and while it trains."""
        run, witness = self.copy()
        board = self.lab.board
        try:
            with clock_of(board):
                board.clock_ns = DAY_NS
                control.send(run, "pause", sender="campaign")  # from before the launch, by a clock that was ahead
                board.clock_ns = 0
                life = self.lab.begin(run)
                self._reached(Phase.STEP, 1)
                control.send(run, "pause", sender="campaign")
                faults = self._becomes(run, "waiting")
                for days in (1, -1):
                    board.clock_ns = days * DAY_NS
                    faults += self._becomes(run, "waiting") + self._answers(run, "save")
                faults += self._answers(run, "resume")
                for days in (1, -1):
                    board.clock_ns = days * DAY_NS
                    self._reached(Phase.STEP, board.entries(Phase.STEP) + 5)
                faults += self._finishes(life, witness)
                return faults + self._becomes(run, "finished")
        finally:
            board.clock_ns = 0

    def _answers(self, run: RunDir, verb: str) -> list[str]:
        """A fault where a letter is not soon obeyed."""
        letter = control.send(run, verb, sender="campaign")
        try:
            _until(lambda: any(record.get("id") == letter and record.get("ok") for record in _records(run)), "")
        except TimeoutError:
            return [f"the letter {verb} was not obeyed within {_SOON_S:.0f} s"]
        return []

    def _becomes(self, run: RunDir, state: str) -> list[str]:
        """A fault where a run is not soon seen in that state."""
        try:
            _until(lambda: read_liveness(run).state == state, "")
        except TimeoutError:
            return [f"was {read_liveness(run).state} for {_SOON_S:.0f} s, not {state}"]
        return []

    def two_trainers(self, _: object) -> list[str]:
        """Two start at once: one refuses and names the other's pid, which is not disturbed."""
        run, witness = self.copy()
        lives = [self.lab.begin(run), self.lab.begin(run, marked=False)]
        _until(lambda: any(record["kind"] == "step" for record in _records(run)), "neither began")
        control.send(run, "pause", sender="campaign")  # lest it be done before the other stops waiting for its turn
        _until(lambda: any(life.gone() for life in lives), "neither refused")
        winner, loser = sorted(lives, key=Life.gone)
        result = loser.end()
        faults = self._answers(run, "resume")
        if result.get("error") != "RunBusy" or not re.search(rf"\bpid {winner.pid}\b", str(result.get("why"))):
            faults.append(f"the second trainer was not refused by name: {result}")
        return faults + self._finishes(winner, witness)

    def frozen(self, _: object) -> list[str]:
        """A stopped process is asleep to who looks an hour later; woken it goes on."""
        run, witness = self.copy()
        life = self.lab.begin(run)
        self._reached(Phase.STEP, self.rng.randint(1, self.steps // 2))
        life.signal(signal.SIGSTOP)
        time.sleep(0.05)
        seen = read_liveness(run, now=time.time() + 3600)
        life.signal(signal.SIGCONT)
        faults = [] if seen.state == "asleep" else [f"a stopped process is shown as {seen.state}"]
        return faults + self._becomes(run, "running") + self._finishes(life, witness)


def _records(run: RunDir) -> list[dict[str, Any]]:
    return list(read_records(run.telemetry))


def _patiently(trial: Callable[..., list[str]], argument: object) -> list[str]:
    """The faults of a trial; that something never came about is one too."""
    try:
        return trial(argument)
    except TimeoutError as error:
        return [str(error)]


def _until(true: Callable[[], bool], otherwise: str) -> None:
    """Waits until something is so. Raises TimeoutError."""
    until = time.monotonic() + _SOON_S
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(otherwise)
        time.sleep(0.002)
