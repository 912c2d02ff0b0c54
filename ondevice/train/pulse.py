"""The run's present tense: rates, time left and ``status.json``. Fed by the loop, which alone decides when.

Burst rates count time inside steps; sustained rates count the wall clock, rests included.
"""

from __future__ import annotations

import os
import time
from collections import deque
from statistics import median
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir
from ondevice.run.liveness import write_status
from ondevice.run.recipe import Recipe
from ondevice.run.telemetry import TelemetryWriter

__all__ = ["Pulse"]

STATUS_EVERY_S = 1.0


class Pulse:
    """Times of steps, and the status file (at most once a second unless the hold changed)."""

    def __init__(self, run: RunDir, recipe: Recipe, *, launch: int, step: int, story: TelemetryWriter) -> None:
        self._run, self._recipe, self._launch, self._story = run, recipe, launch, story
        self._started = time.monotonic()
        self._first_step = step
        self._step_s: deque[float] = deque(maxlen=33)
        self._written = 0.0
        self._hold = ""
        self._facts: dict[str, Any] = {}

    @property
    def step_s(self) -> float | None:
        """Median of the last steps, rests not counted."""
        return median(self._step_s) if self._step_s else None

    @property
    def tokens_per_step(self) -> int:
        return self._recipe.train.batch * self._recipe.model.context

    def after_step(self, step_s: float) -> None:
        self._step_s.append(step_s)

    def rates(self, step: int) -> dict[str, float | None]:
        """``tok_s`` burst, ``tok_s_sustained`` since the launch, ``eta_s`` at the sustained rate."""
        elapsed = time.monotonic() - self._started
        done = step - self._first_step
        left = self._recipe.train.steps - step
        return {
            "step_s": self.step_s,
            "tok_s": self.tokens_per_step / self.step_s if self.step_s else None,
            "tok_s_sustained": done * self.tokens_per_step / elapsed if done else None,
            "eta_s": left * elapsed / done if done else None,
        }

    def note(self, **facts: Any) -> None:
        """Facts to show until they change: loss, val_loss, best_step, last_error ..."""
        self._facts.update(facts)

    def beat(self, *, state: str, step: int, tokens: int, hold: str = "", force: bool = False) -> dict[str, Any] | None:
        """Writes the status if it is due; gives what it wrote, or None."""
        now = time.monotonic()
        if not force and hold == self._hold and now - self._written < STATUS_EVERY_S:
            return None
        status = {
            "heartbeat_t": round(time.time(), 3),
            "state": state,
            "hold": hold,
            "launch": self._launch,
            "pid": os.getpid(),
            "step": step,
            "steps": self._recipe.train.steps,
            "tokens": tokens,
            "tokens_total": self._recipe.train.tokens,
            "telemetry": self._story.position,
            **self.rates(step),
            **self._facts,
        }
        try:
            write_status(self._run, status, durable=hold != self._hold)
        except OndeviceError as error:  # a full disk must not end a run that can go on without telling
            self._facts["last_error"] = status["last_error"] = str(error)
        self._written, self._hold = now, hold
        return status
