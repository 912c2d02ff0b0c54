"""The run's present tense: rates, time left, signs of life and ``status.json``. Fed by the loop, which decides when.

Burst rates count time inside steps; sustained rates count the wall clock, rests and sleep included. What is told of the
future is `ondevice.train.outlook`'s. Time asleep or frozen is noticed here and told as a ``note``.
"""

from __future__ import annotations

import os
import time
from collections import deque
from statistics import median
from typing import Any

from ondevice.device.clock import Clocks
from ondevice.device.host import on_android
from ondevice.device.vitals import Vitals
from ondevice.device.world import World
from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir, boot_id
from ondevice.run.liveness import read_status, write_status
from ondevice.run.recipe import Recipe
from ondevice.run.telemetry import TelemetryWriter
from ondevice.run.usage import Usage
from ondevice.train.outlook import Outlook

__all__ = ["PHASES", "Pulse"]

STATUS_EVERY_S = 1.0
PHASES = ("start", "step", "evaluate", "sample", "save")
_DISK = ("start", "save")  # phases that wait for a disk, with an idle processor


class Pulse:
    """Times of steps, and the status file (at most once a second unless the hold or the phase changed)."""

    def __init__(
        self,
        run: RunDir,
        recipe: Recipe,
        *,
        launch: int,
        step: int,
        story: TelemetryWriter,
        clocks: Clocks | None = None,
        world: World | None = None,
    ) -> None:
        """Rates, and what is told of the future, go by the clocks of ``world``; None: by this machine's."""
        self._run, self._recipe, self._launch, self._story = run, recipe, launch, story
        self._clocks, self._vitals, self._boot_id = clocks or Clocks(), Vitals(), boot_id()
        self._elapsed = world.boottime if world else self._clocks.boottime_s
        self._now = world.now if world else time.time
        self._first_step, self._began_s = step, self._elapsed()
        self._step_s: deque[float] = deque(maxlen=33)
        self._written = 0.0
        self._told: tuple[str | None, str] = (None, "")  # the hold and the phase that the status has
        self._state = "running"
        self._facts: dict[str, Any] = {}
        self.phase = "start"
        self.outlook = Outlook(
            Usage.from_json(read_status(run).get("usage")), handheld=world.handheld if world else on_android(os.environ)
        )

    @property
    def step_s(self) -> float | None:
        """Median of the last steps, rests not counted."""
        return median(self._step_s) if self._step_s else None

    @property
    def tokens_per_step(self) -> int:
        return self._recipe.train.batch * self._recipe.model.context

    def begin(self) -> None:
        """The state is ready: sustained rates count from here."""
        self._began_s = self._elapsed()
        self.outlook.usage.begin(self._began_s)

    def after_step(self, step_s: float) -> None:
        self._step_s.append(step_s)
        self.outlook.usage.step(self._elapsed(), step_s=step_s, tokens=self.tokens_per_step)

    def feel(self, reading: dict[str, Any]) -> None:
        """The sensors were read: shows their values and counts what the battery gave."""
        self.note(**reading)
        self.outlook.feel(self._elapsed(), reading)

    def rates(self, step: int) -> dict[str, float | None]:
        """``tok_s`` burst, ``tok_s_sustained`` since the launch, ``eta_s`` at the sustained rate; seconds away.

        The status has a better ``eta_s``, and the sustained rate of the last hour of work: see `Outlook.told`.
        """
        elapsed = self._elapsed() - self._began_s
        done = step - self._first_step
        left = self._recipe.train.steps - step
        return {
            "step_s": self.step_s,
            "tok_s": self.tokens_per_step / self.step_s if self.step_s else None,
            "tok_s_sustained": done * self.tokens_per_step / elapsed if done and elapsed > 0 else None,
            "eta_s": left * elapsed / done if done else None,
            "slept_s": round(self._clocks.slept_s, 1),
            "frozen_s": round(self._clocks.frozen_s, 1),
        }

    def note(self, **facts: Any) -> None:
        """Facts to show until they change: loss, val_loss, best_step, last_error ..."""
        self._facts.update(facts)

    def enter(self, phase: str, *, step: int, tokens: int) -> None:
        """Says what comes now (one of `PHASES`) before it begins, so that a death in it is known to be one."""
        assert phase in PHASES, phase
        self.phase = phase
        self.beat(state=self._state, step=step, tokens=tokens, hold=self._told[0] or "", force=True)

    def beat(self, *, state: str, step: int, tokens: int, hold: str = "", force: bool = False) -> dict[str, Any] | None:
        """Writes the status if it is due; gives what it wrote, or None."""
        self._look_at_clocks(step)
        self.outlook.usage.at(self._elapsed(), waiting=state == "waiting")
        now = time.monotonic()
        if not force and (hold, self.phase) == self._told and now - self._written < STATUS_EVERY_S:
            return None
        status = {
            "heartbeat_t": round(time.time(), 3),
            "boottime_s": round(self._clocks.boottime_s(), 3),
            "boot_id": self._boot_id,
            "state": state,
            "phase": self.phase,
            "hold": hold,
            "launch": self._launch,
            "pid": os.getpid(),
            "step": step,
            "steps": self._recipe.train.steps,
            "tokens": tokens,
            "tokens_total": self._recipe.train.tokens,
            "telemetry": self._story.position,
            **self.rates(step),
            **self.outlook.told(tokens_left=self._recipe.train.tokens - tokens, now=self._now()),
            **self._facts,
            **self._vitals.read(),
        }
        try:
            write_status(self._run, status, durable=hold != self._told[0])
        except OndeviceError as error:  # a full disk must not end a run that can go on without telling
            self._facts["last_error"] = status["last_error"] = str(error)
        self._written, self._told, self._state = now, (hold, self.phase), state
        return status

    def _look_at_clocks(self, step: int) -> None:
        gap = self._clocks.look(usual_s=self.step_s or 0.0, may_idle=self.phase in _DISK)
        if gap is not None:
            away = {"slept_s": gap.slept_s, "frozen_s": gap.frozen_s, "clock_jumped_s": gap.jumped_s}
            known = {name: round(seconds, 3) for name, seconds in away.items() if seconds}
            self._story.write("note", step, text=str(gap), **known)
