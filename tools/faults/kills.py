"""SIGKILL at random instants of a training process, again and again, until the run is done all the same.

Each configuration first runs once undisturbed. Then victims are killed in the phase that has had the fewest kills, at
a random moment of it; after every kill the `Witness` looks; a run that got to its end is compared with the undisturbed
one, and the next round begins afresh.
"""

from __future__ import annotations

import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ondevice.run.directory import RunDir, offline_lock
from ondevice.run.store import Store

from .board import BACKGROUND, MAIN, Board, Phase
from .lab import Lab, Life
from .table import Row
from .truth import Truth, learn
from .wishes import WISHES, Wish, make, set_limits
from .witness import Witness

__all__ = ["REDUCED", "Campaign", "histogram", "run"]

TARGETS = (Phase.STEP, Phase.SAVE, Phase.PROMOTION, Phase.PRUNE)
KEEP_LAST = 2
REDUCED = (WISHES[1], WISHES[-2])  # both models, both optimizers, one with saves in the background
_LONGEST_S = 60.0
_ENOUGH_LOSSES = 100  # to see that something is broken


def run(*, full: bool, folder: Path, seed: int) -> Iterator[Row]:
    """A row for each configuration; with ``full`` at least 500 kills in all."""
    with Lab(folder / "kills") as lab:
        for wish in WISHES if full else REDUCED:
            campaign = Campaign(lab, wish, rng=random.Random(seed), steps=300 if full else 36)
            yield campaign.run(each=22 if full else 4)


def histogram(hits: Counter[Phase]) -> str:
    """Where the kills fell."""
    return ", ".join(f"{phase.name.lower()} {hits[phase]}" for phase in Phase if hits[phase])


@dataclass
class Campaign:
    """Kills over one configuration; see `run`."""

    lab: Lab
    wish: Wish
    rng: random.Random
    steps: int
    hits: Counter[Phase] = field(default_factory=Counter)
    losses: list[str] = field(default_factory=list)
    silent: int = 0
    finished: int = 0

    def run(self, *, each: int) -> Row:
        """Kills until every phase was hit ``each`` times and one run more was let to its end."""
        original = make(self.lab, self.wish, steps=self.steps)
        set_limits(
            original,
            keep_last=KEEP_LAST,
            save_every_steps=self.wish.save_every,
            save_in_background=self.wish.background,
        )
        fresh = self.lab.folder / "fresh" / self.wish.name
        shutil.copytree(original.path, fresh)
        truth = learn(self.lab, original)
        while (not self._enough(each) or not self.finished) and len(self.losses) < _ENOUGH_LOSSES:
            self._round(fresh, truth, each)
        kills = sum(self.hits.values())
        detail = f"{histogram(self.hits)}; {self.finished} runs of {self.steps} steps to the end"
        if self.losses:
            detail += "\n" + "\n".join(self.losses[:5])
        return Row(f"kill {self.wish.name}", kills, len(self.losses), self.silent, detail)

    def _enough(self, each: int) -> bool:
        """Phases that are hard to hit may stay behind: after four times as many kills it is enough."""
        return all(self.hits[phase] >= each for phase in TARGETS) or sum(self.hits.values()) >= 4 * 4 * each

    def _round(self, fresh: Path, truth: Truth, each: int) -> None:
        """One run from its first step to its last."""
        run = RunDir(fresh.parent.parent / "home" / "runs" / f"{self.wish.name}-{self.finished}")
        shutil.copytree(fresh, run.path)
        witness = Witness(run, truth, KEEP_LAST)
        for life_number in range(10_000):
            life = self.lab.begin(run)
            killed = not self._enough(each) and self._kill(life)
            result = life.end(timeout_s=_LONGEST_S)
            if killed and "outcome" not in result:
                self.hits[self._fell()] += 1
            self._note(witness.look(self.lab.board.committed), life_number)
            if result.get("outcome") == "finished":
                break
            if not killed or result["status"] != -signal.SIGKILL:
                self._note([f"the run did not go on: {result}"], life_number)
                break
            self._pin_sometimes(run, witness)
        self._note(truth.differs_at_end(run), life_number)
        self.finished += 1
        self.silent += witness.silent
        shutil.rmtree(run.path)

    def _note(self, faults: list[str], life_number: int) -> None:
        self.losses += [f"{self.wish.name}, round {self.finished}, life {life_number}: {fault}" for fault in faults]

    def _fell(self) -> Phase:
        """The phase of the kill; what runs in the background counts before what waits for nothing."""
        background = self.lab.board.phase(BACKGROUND)
        return self.lab.board.phase(MAIN) if background == Phase.IDLE else background

    def _kill(self, life: Life) -> bool:
        """Waits for a random entry of the phase most in want of kills, then a random share of its usual length."""
        board = self.lab.board
        target = min(TARGETS, key=lambda phase: (self.hits[phase], self.rng.random()))
        if self.rng.random() < 0.03:
            target = Phase.START
        entry = self.rng.randint(1, 2 * self.wish.save_every + 2 if target == Phase.STEP else 3)
        delay_s = self.rng.random() * (board.last_s(target) if target != Phase.START else 0.06)
        if target != Phase.START and not self._await(life, board, target, entry):
            return False
        until = time.perf_counter() + delay_s
        while time.perf_counter() < until:
            pass
        life.signal(signal.SIGKILL)
        return True

    def _await(self, life: Life, board: Board, target: Phase, entry: int) -> bool:
        """Whether the phase was entered that often before the process ended; spins where it is near and short."""
        near = Phase.SAVE if target in (Phase.PROMOTION, Phase.PRUNE) else target
        until = time.perf_counter() + _LONGEST_S
        while board.entries(target) < entry:
            if near == target or board.entries(near) < entry:
                time.sleep(0.0002)
            if life.gone() or time.perf_counter() > until:
                return False
        return True

    def _pin_sometimes(self, run: RunDir, witness: Witness) -> None:
        """A pinned checkpoint must be there at the end."""
        store = Store(run.checkpoints)
        if witness.complete and len(store.pins()) < 2 and self.rng.random() < 0.1:
            with offline_lock(run, what="campaign"):
                store.pin(self.rng.choice(sorted(witness.complete)), "a person wants it")
