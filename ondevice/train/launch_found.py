"""What a launch finds of its run: the newest intact checkpoint, how the launch before it ended, which decides the fit
(``ondevice.train.refit``), and the limits and the wish that hold.

Damage is a sentence where something else takes the place of what is lost, and an error where nothing does.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from ondevice.device.vitals import read_scene
from ondevice.errors import CheckpointError, DataError, OndeviceError
from ondevice.run.config import read_limits, read_wish
from ondevice.run.directory import RunDir
from ondevice.run.postmortem import examine, previous
from ondevice.run.recipe import Recipe
from ondevice.run.schema import Config, Limits
from ondevice.run.store import Checkpoint, Store
from ondevice.train.desk import Display
from ondevice.train.refit import Decision, Device, decide

__all__ = ["Before", "Found", "chain_wish", "find_checkpoint", "limits_that_hold", "look_back", "readable_wish"]


@dataclass(frozen=True)
class Found:
    """The checkpoint to go on from (None: there is none yet), and a sentence for each newer one that is damaged."""

    checkpoint: Checkpoint | None
    damage: list[str]

    @property
    def step(self) -> int:
        return self.checkpoint.step if self.checkpoint else 0


def find_checkpoint(run: RunDir, display: Display) -> Found:
    """The newest intact checkpoint; damaged ones are told to a person. Raises CheckpointError where none is intact."""
    store = Store(run.checkpoints)
    store.sweep()
    checkpoint, damage = store.latest(complete=True)
    if checkpoint is None and damage:
        raise CheckpointError(
            f"{run.name}: no checkpoint is intact ({damage[0]}). Copy one back from a backup, or start again with "
            f"`ondevice runs rm {run.name}`."
        )
    for sentence in damage:
        display.say(f"Skipped a damaged checkpoint: {sentence}")
    return Found(checkpoint, damage)


@dataclass(frozen=True)
class Before:
    """How the last launch ended and what follows from it. ``ended`` goes into the record, ``said`` to a person."""

    ended: dict[str, Any] | None
    decision: Decision
    device: Device
    said: list[str]


def look_back(run: RunDir, recipe: Recipe, found: Found, limits: Limits, *, refit: bool) -> Before:
    """Finds out how the last launch ended and chooses the fit of this one."""
    torch.set_flush_denormal(True)  # before the first parallel operation of timed steps, or it covers one thread only
    death, device = examine(run, read_scene(), held=True), Device.here(limits)
    ended = previous(run, death, resumed_step=found.step)
    decision = decide(run, recipe, found.checkpoint, death=death, limits=limits, device=device, asked=refit)
    told = [death.sentence(ended["steps_lost"])] if death and ended else []
    return Before(ended=ended, decision=decision, device=device, said=[*told, *decision.said])


def limits_that_hold(run: RunDir) -> tuple[Limits, list[str]]:
    """``limits.json`` where there is one, else the limits of the config the run began with; and what was wrong."""
    why = []
    if run.limits.exists():
        try:
            return read_limits(run.limits), []
        except DataError as error:
            why.append(f"{error} The limits of config.toml hold; `ondevice doctor {run.name}` looks for the lost ones.")
    return read_wish(run.config).limits, why


def chain_wish(run: RunDir, recipe: Recipe) -> Config:
    """How a chain is to go on; where that was damaged, to its end."""
    return readable_wish(run) if recipe.data.parts else Config()


def readable_wish(run: RunDir) -> Config:
    """What was wished for; nothing, where that was damaged."""
    with suppress(OndeviceError):
        return read_wish(run.config)
    return Config()
