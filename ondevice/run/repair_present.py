"""Mends what holds now: limits, pins and status, from what the story tells. A damaged story mends nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.config import change_limits, write_limits
from ondevice.run.digest import digest
from ondevice.run.directory import RunDir
from ondevice.run.files import write_sealed
from ondevice.run.liveness import read_status, write_status
from ondevice.run.schedule import FILE, write_schedule
from ondevice.run.schema import Limits
from ondevice.run.store import PINS_VERSION
from ondevice.run.telemetry import read_records
from ondevice.run.verify_papers import readable_recipe
from ondevice.run.verify_present import began_with, limits_fault, pins_fault, status_fault
from ondevice.run.verify_schedule import folded, schedule_fault
from ondevice.run.verify_story import Story

__all__ = ["mend_limits", "mend_pins", "mend_schedule", "mend_status", "told_status"]

Done = Iterator[tuple[str, str]]


def mend_limits(run: RunDir, story: Story, dry: bool) -> Done:
    """``limits.json`` as the newest launch found it, with what was asked for since."""
    if not limits_fault(run, story) or not story.whole:
        return
    told: Mapping[str, Any] | None = story.told.limits or began_with(run)
    if told is None:
        return
    try:
        known = {key: value for key, value in told.items() if key in vars(Limits()) and value is not None}
        limits = change_limits(Limits(), known, where="telemetry")
    except OndeviceError:
        return
    if not dry:
        write_limits(run.limits, limits, after=story.end)
    yield "limits.json", "made anew from what the story tells; a change while no trainer lived must be repeated"


def mend_pins(run: RunDir, story: Story, dry: bool) -> Done:
    """``pins.json`` as the newest launch found it, with what was asked for since."""
    if not pins_fault(run, story) or story.told.pins is None:
        return
    body = {"v": PINS_VERSION, "pins": dict(sorted(story.told.pins.items(), key=lambda pin: int(pin[0])))}
    if not dry:
        write_sealed(run.checkpoints / "pins.json", {**body, "after": story.end} if story.end else body)
    count = len(story.told.pins)
    yield "checkpoints/pins.json", f"made anew from what the story tells ({count} pinned)"


def mend_status(run: RunDir, story: Story, dry: bool) -> Done:
    """``status.json`` with what the story tells and the hold of the last answered letter, so that a run that a person
    paused stays paused."""
    if not status_fault(run, story):
        return
    hold = str(read_status(run).get("hold") or "") if not story.whole else story.told.hold
    if not dry:
        write_status(run, told_status(run, story, hold), durable=True)
    yield "status.json", "made anew from what the story tells" + (f"; it stays {hold}" if hold else "")


def mend_schedule(run: RunDir, story: Story, dry: bool) -> Done:
    """``schedule.json`` of a chain, which is a fold of the recipe and the story."""
    recipe = readable_recipe(run)
    if recipe is None or not recipe.data.parts or not schedule_fault(run, story, recipe):
        return
    if not dry:
        write_schedule(run.path, folded(run, recipe))
    yield FILE, "made anew from the recipe and the story"


def told_status(run: RunDir, story: Story, hold: str) -> dict[str, Any]:
    """The present tense of a run without a trainer, as far as its story tells it."""
    told, recipe = digest(read_records(run.telemetry)), readable_recipe(run)
    ended = told.ended or {}
    return {
        "heartbeat_t": told.last_t,
        "state": ended.get("outcome", "killed"),
        "hold": hold,
        "launch": max(story.files, default=0),
        "pid": None,
        "step": told.step,
        "steps": recipe.train.steps if recipe else told.steps,
        "tokens": told.tokens,
        "tokens_total": recipe.train.tokens if recipe else None,
        "telemetry": story.end,
        **{key: ended.get(key) for key in ("step_s", "tok_s", "tok_s_sustained", "eta_s")},
        "best_step": told.best_step,
        "best_loss": told.best_loss,
        "loss": told.loss.last,
        "lr": told.lr.last,
        "last_error": None,
    }
