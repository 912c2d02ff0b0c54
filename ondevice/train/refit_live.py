"""Another fit for a run that goes on: threads for heat's or other programs' sake, less memory where it runs out.

The governor says what is due (``ondevice.governor.threads``); this finds the fit that answers it, and puts it in force
between two steps. The loop decides when, and saves before, so that a kill right after goes on with the same bits.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import torch

from ondevice.device.memory import give_back_memory
from ondevice.governor.threads import Wish
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.schema import Limits
from ondevice.train.autotune import rows_for, threads_to_try
from ondevice.train.desk import Desk
from ondevice.train.engine import Engine
from ondevice.train.memory import estimate_run
from ondevice.train.pacer import Pacer
from ondevice.train.probe import time_gradients
from ondevice.train.race import Race, Timing
from ondevice.train.refit import differences, smaller
from ondevice.train.warming import tell_compiled, tell_compiling

__all__ = ["Refitter", "put_in_force", "shorter"]

RETUNE_S = 8.0
WORTH_MB = 16.0  # less is not worth leaving the bits of an undisturbed run


def put_in_force(fit: Fit, engine: Engine) -> None:
    """Lets an engine work by another fit; its micro-batches are the business of who feeds it."""
    torch.set_num_threads(fit.threads)
    engine.use(fit)


def shorter(fit: Fit, parts: int) -> Fit:
    """The fit with micro-batches halved until one is cut into that many, as far as whole sequences go."""
    micro_batch = fit.micro_batch
    while micro_batch > 1 and micro_batch * parts > fit.micro_batch:
        micro_batch //= 2
    return dataclasses.replace(fit, micro_batch=micro_batch)


class Refitter:
    """The changes of fit of one launch. ``fit`` is the one in force; ``next`` the one that was found to be better."""

    def __init__(self, *, recipe: Recipe, fit: Fit, engine: Engine, desk: Desk, pacer: Pacer) -> None:
        self.fit = fit
        self.next: Fit | None = None
        self._recipe, self._engine, self._desk, self._pacer = recipe, engine, desk, pacer
        self._wish: Wish | None = None
        self._said: set[str] = set()
        desk.pulse.note(**self._told(fit))

    def _told(self, fit: Fit) -> dict[str, Any]:
        """What the status says of a fit: it, and the memory that it takes by the plan."""
        return {"fit": fit.to_json(), "plan_mb": round(estimate_run(self._recipe, fit).total_mb, 1)}

    def is_due(self, step: int, limits: Limits) -> bool:
        """Whether something speaks for another fit now; why it may not change is said once."""
        self.next, self._wish = None, self._pacer.wish()
        if self._wish is not None and limits.fixed_fit:
            self._refuse(step, f"The fit stays as it is because limits.fixed_fit is set, though {self._wish.why}.")
        return self._wish is not None

    def look(self, step: int) -> Iterator[None]:
        """Finds ``next``; items where the caller may rest or stop, since timing takes up to some ten seconds."""
        wish = self._wish
        assert wish is not None, "ask is_due first"
        if wish.kind == "smaller":
            self.next = self._smaller(step)
        elif wish.parts is not None:
            self.next = shorter(self.fit, wish.parts)
        elif wish.threads is not None:
            self._propose(wish.threads)
        elif self._desk.world.simulated is None:
            yield from self._time_threads(step, wish)
        if self.next is None and self._wish is not None:
            self._pacer.refitted(wish, threads=self.fit.threads)

    def carry_out(self, step: int) -> Fit:
        """Puts ``next`` in force and tells of it; the state of ``step`` was just saved."""
        new, wish, old = self.next, self._wish, self.fit
        assert new is not None and wish is not None, "look first"
        self._pacer.refitted(wish, threads=new.threads, micro_batch=new.micro_batch)
        self._desk.telemetry.write(
            "fit",
            step,
            old=old.to_json(),
            new=new.to_json(),
            why=wish.why,
            exact_from=step,
            full_threads=self._pacer.full_threads,
        )
        self.fit, self.next = new, None
        self._desk.display.say(f"The fit changes at step {step} ({', '.join(differences(old, new))}): {wish.why}.")
        tell_compiling(self._recipe, display=self._desk.display, anew=True)
        put_in_force(new, self._engine)
        tell_compiled(self._engine, step, telemetry=self._desk.telemetry, display=self._desk.display)
        give_back_memory()
        self._desk.pulse.note(**self._told(new))
        return new

    def _refuse(self, step: int, sentence: str) -> None:
        """Says once why nothing changes; want of memory is looked at again after a while."""
        wish, self._wish = self._wish, None
        if wish is not None and wish.kind == "smaller":
            give_back_memory()
            self._pacer.refitted(wish, threads=self.fit.threads)
        if sentence.partition(",")[0] not in self._said:
            self._said.add(sentence.partition(",")[0])
            self._desk.telemetry.write("note", step, text=sentence)
            self._desk.display.say(sentence)

    def _propose(self, threads: int) -> None:
        self.next = dataclasses.replace(self.fit, threads=threads) if threads != self.fit.threads else None

    def _smaller(self, step: int) -> Fit | None:
        fit = smaller(self.fit, self._recipe)
        now_mb, then_mb = (estimate_run(self._recipe, each).total_mb for each in (self.fit, fit))
        if now_mb - then_mb >= WORTH_MB:
            return fit
        self._refuse(step, "Memory runs out, and no smaller fit would give back enough to help: close other programs.")
        return None

    def _time_threads(self, step: int, wish: Wish) -> Iterator[None]:
        """Times gradients of the run's own model, which learns nothing from it, with every number of threads."""
        counts = threads_to_try(self.fit.threads, os.cpu_count() or 1)
        shape, fit = self._recipe.trained, self.fit

        def trial(threads: int, rows: int) -> Timing:
            torch.set_num_threads(threads)
            try:
                return time_gradients(self._engine, shape, rows=rows)
            finally:
                torch.set_num_threads(fit.threads)

        rows = rows_for(min(trial(fit.threads, 1).seconds for _ in range(2)), fit.micro_batch)
        race = Race(counts, lambda threads: trial(threads, rows), seconds=RETUNE_S)
        yield from race.trials()
        self._propose(race.winner)
        if self.next is None:
            text = f"Threads were timed again because {wish.why}: {fit.threads} stay ({race.spent_s:.0f} s)."
            self._desk.telemetry.write("note", step, text=text)
            self._desk.display.say(text)
