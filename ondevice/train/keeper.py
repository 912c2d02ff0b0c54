"""Keeps checkpoints: decides when one is due, commits it, reads it back, and only then prunes older ones.

Used by the loop alone. A save that fails leaves the older checkpoints untouched and is tried again later.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from ondevice.device.readings import Sensors
from ondevice.errors import OndeviceError, ResourceError
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.schema import Limits
from ondevice.run.store import Store, steps_to_keep
from ondevice.run.telemetry import TelemetryWriter
from ondevice.train.checkpoint import save
from ondevice.train.state import TrainState

__all__ = ["Keeper", "Saved", "save_interval_s"]

SHARE = 0.02  # of the time may go to saving
LONGEST_S = 1800.0
RETRY_S = 60.0


def save_interval_s(save_s: float, save_every_s: float) -> float:
    """Seconds between saves: ``save_s / 0.02``, at least ``save_every_s``, at most 30 minutes (or ``save_every_s``)."""
    return max(save_every_s, min(save_s / SHARE, LONGEST_S))


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A committed checkpoint: hash of its manifest, seconds it took, bytes it holds, steps pruned after it."""

    sha256: str
    save_s: float
    bytes: int
    removed: list[int]


class Keeper:
    """The checkpoints of one launch. ``fault`` is the last failure, None after a success."""

    def __init__(self, store: Store, sensors: Sensors, *, saved_step: int) -> None:
        self.store, self._sensors = store, sensors
        self.saved_step = saved_step
        self.save_s = 0.0
        self.fault: OndeviceError | None = None
        self._tried_at = time.monotonic()

    def is_due(self, step: int, *, best: bool, limits: Limits) -> bool:
        """Whether to save now. ``best``: the step just measured best, worth a save if the last one is paid off."""
        if step in (self.saved_step, 0):
            return False
        waited_s = time.monotonic() - self._tried_at
        if self.fault is not None:
            return waited_s >= RETRY_S
        interval_s = save_interval_s(self.save_s, limits.save_every_s)
        return waited_s >= interval_s or (best and waited_s >= min(self.save_s / SHARE, interval_s))

    def save(
        self,
        state: TrainState,
        *,
        story: TelemetryWriter,
        recipe: Recipe,
        fit: Fit,
        limits: Limits,
        launch: int,
    ) -> Saved | None:
        """Makes the story durable, commits the state, reads it back and prunes; or sets `fault` and gives None."""
        self._tried_at = began = time.monotonic()
        try:
            self._refuse_full_disk(state, limits)
            story.sync()
            if state.best_step == state.step:
                state.best_saved = state.step
            checkpoint = save(self.store, state, recipe=recipe, fit=fit, launch=launch)
            self.store.open(state.step)
            removed = self._prune(state, limits)
        except OndeviceError as error:
            self.fault = error
            return None
        self.fault, self.saved_step = None, state.step
        self._tried_at = time.monotonic()
        self.save_s = self._tried_at - began
        size = sum(entry["bytes"] for entry in checkpoint.manifest["files"].values())
        return Saved(sha256=checkpoint.sha256, save_s=round(self.save_s, 3), bytes=size, removed=removed)

    def _prune(self, state: TrainState, limits: Limits) -> list[int]:
        """Later steps than this were damaged when the run began; they neither count nor go before they are redone."""
        steps = self.store.steps()
        done = [step for step in steps if step <= state.step]
        keep = steps_to_keep(done, keep_last=limits.keep_last, pins=self.store.pins(), best=state.best_saved)
        return self.store.prune(keep | (set(steps) - set(done)))

    def _refuse_full_disk(self, state: TrainState, limits: Limits) -> None:
        free_mb = self._sensors.read().disk_free_mb
        need_mb = 12 / 2**20 * sum(p.numel() for p in state.model.parameters()) + limits.min_free_disk_mb
        if free_mb is not None and free_mb < need_mb:
            raise ResourceError(
                f"{self.store.folder}: {free_mb:,.0f} MB are free and a save needs {need_mb:,.0f} MB; free some space "
                "or lower limits.min_free_disk_mb. Training goes on and saves as soon as there is room."
            )
