"""One launch of a run: takes the lock, restores or makes the state, and hands everything to the loop.

A launch reuses the last checkpoint's fit (a fit is sticky) and says in its ``launch`` record where it goes on from and
whether bit-exactness holds.
"""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ondevice
from ondevice.data.dataset import Dataset
from ondevice.device.readings import Sensors
from ondevice.errors import CheckpointError, DataError
from ondevice.model.build import build_model
from ondevice.run import control
from ondevice.run.audit import story_end
from ondevice.run.config import parse_config, read_limits
from ondevice.run.directory import RunDir, RunLock, boot_id, home
from ondevice.run.files import read_json
from ondevice.run.liveness import read_status
from ondevice.run.migrate import migrate
from ondevice.run.papers import environment
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.schema import Limits
from ondevice.run.store import Checkpoint, Store
from ondevice.run.telemetry import TelemetryWriter, launch_files
from ondevice.train.checkpoint import exactness_facts, load_training
from ondevice.train.desk import Desk, Display
from ondevice.train.engine import Engine
from ondevice.train.keeper import Keeper
from ondevice.train.loop import Loop, Outcome
from ondevice.train.optimizer import make_optimizer
from ondevice.train.orders import Orders
from ondevice.train.prepare import make_cursor
from ondevice.train.pulse import Pulse
from ondevice.train.signals import Signals
from ondevice.train.state import TrainState

__all__ = ["launch", "make_loop", "open_dataset"]


def launch(run: RunDir, *, display: Display, keep_hold: bool = False) -> Outcome:
    """Trains a run to its end or until asked to leave.

    ``keep_hold``: an automatic restart stays paused; a person who starts
    the run clears the hold. Raises RunBusy, CheckpointError, DataError or ResourceError.
    """
    lock = RunLock(run)
    try:
        with Signals() as signals:
            return _launch(run, display, keep_hold, signals)
    finally:
        lock.release()


def _launch(run: RunDir, display: Display, keep_hold: bool, signals: Signals) -> Outcome:
    loop = make_loop(run, display=display, keep_hold=keep_hold, signals=signals)
    try:
        return loop.run_to_end()
    finally:
        loop.telemetry.close()


def make_loop(run: RunDir, *, display: Display, keep_hold: bool = False, signals: Signals | None = None) -> Loop:
    """Everything a launch needs, restored or made, and its ``launch`` record written. The caller holds the lock."""
    began_t = time.time()  # letters written from here on are for this launch
    notes = migrate(run)
    recipe = run.read_recipe()
    dataset = open_dataset(recipe)
    found = _find_checkpoint(run, display)
    fit = _sticky_fit(run, found.checkpoint)
    _prepare_torch(fit, recipe)
    state = _make_state(recipe, dataset, fit, found.checkpoint)
    limits, why = _read_limits(run)
    number = run.next_launch()
    before = _previous_story(run)
    telemetry = TelemetryWriter(run.telemetry, number)
    _tell_launch(telemetry, recipe, fit, number, found, previous_story=before, **_origin(run))
    for sentence in [*notes, *why]:
        telemetry.write("note", state.step, text=sentence)
        display.say(sentence)
    _drop_expired_letters(run, telemetry, state.step, began_t)
    sensors = Sensors(run.path)
    store = Store(run.checkpoints)
    pulse = Pulse(run, recipe, launch=number, step=state.step, story=telemetry)
    pulse.note(best_step=state.best_step, best_loss=state.best_loss)
    desk = Desk(
        run=run,
        limits=limits,
        orders=Orders(hold=str(read_status(run).get("hold") or "") if keep_hold else ""),
        telemetry=telemetry,
        pulse=pulse,
        store=store,
        signals=signals or Signals(),
        sensors=sensors,
        display=display,
    )
    return Loop(
        recipe=recipe,
        fit=fit,
        state=state,
        engine=Engine(
            state.model,
            state.optimizer,
            clip=recipe.train.clip,
            precision=recipe.train.precision,
            loss_chunk_tokens=fit.loss_chunk_tokens,
        ),
        dataset=dataset,
        desk=desk,
        keeper=Keeper(store, sensors, saved_step=state.step),
        launch=number,
    )


def open_dataset(recipe: Recipe) -> Dataset:
    """The dataset of a recipe. Raises DataError when it is gone or no longer the same."""
    where = Path(recipe.data.dataset)
    dataset = Dataset.open(
        where if where.is_absolute() else home() / "datasets" / where, sha256=recipe.data.dataset_sha256
    )
    if dataset.sha256 != recipe.data.dataset_sha256:
        raise DataError(
            f"{dataset.folder}: the dataset changed since this run began, so it cannot go on exactly; start a new run "
            "with another --name, or put the old text back and repeat `ondevice data build`."
        )
    return dataset


@dataclass(frozen=True)
class _Found:
    checkpoint: Checkpoint | None
    damage: list[str]


def _find_checkpoint(run: RunDir, display: Display) -> _Found:
    store = Store(run.checkpoints)
    store.sweep()
    checkpoint, damage = store.latest()
    if checkpoint is None and damage:
        raise CheckpointError(
            f"{run.name}: no checkpoint is intact ({damage[0]}). Copy one back from a backup, or start again with "
            f"`ondevice runs rm {run.name}`."
        )
    for sentence in damage:
        display.say(f"Skipped a damaged checkpoint: {sentence}")
    return _Found(checkpoint, damage)


def _sticky_fit(run: RunDir, checkpoint: Checkpoint | None) -> Fit:
    """The last checkpoint's fit; before the first one, the fit the run began with."""
    if checkpoint is not None:
        return Fit.from_json(checkpoint.facts.get("fit"), where=str(checkpoint.path / "manifest.json"))
    return Fit.from_json(read_json(run.fit), where=str(run.fit))


def _prepare_torch(fit: Fit, recipe: Recipe) -> None:
    # Before the first parallel operation, or it covers one thread only.
    torch.set_flush_denormal(True)
    torch.set_num_threads(fit.threads)
    torch.manual_seed(recipe.train.seed)
    random.seed(recipe.train.seed)
    np.random.seed(recipe.train.seed % 2**32)


def _make_state(recipe: Recipe, dataset: Dataset, fit: Fit, checkpoint: Checkpoint | None) -> TrainState:
    model = build_model(recipe.model, seed=recipe.train.seed if checkpoint is None else None)
    model.activation_checkpointing = fit.activation_checkpointing
    cursor = make_cursor(dataset, recipe.data, context=recipe.model.context, batch=recipe.train.batch)
    if cursor.order_sha256 != recipe.data.order_sha256:
        raise DataError(f"{dataset.folder}: gives another order than the recipe recorded; update ondevice back.")
    state = TrainState(model=model, optimizer=make_optimizer(model, recipe.train), cursor=cursor)
    if checkpoint is not None:
        load_training(checkpoint, state, recipe)
    return state


def _origin(run: RunDir) -> dict[str, Any]:
    """Where the run comes from and what started this launch: enough to mend ``run.json`` and ``config.toml``."""
    return {
        "identity": run.read_identity(),
        "config": run.config.read_text("utf-8", "replace"),
        "command": sys.argv,
        "environment": environment(),
    }


def _previous_story(run: RunDir) -> dict[str, Any] | None:
    """How far the story went before this launch, so that a cut of its file is noticed later."""
    files = launch_files(run.telemetry)
    return story_end(files[-1]) if files else None


def _tell_launch(
    telemetry: TelemetryWriter, recipe: Recipe, fit: Fit, number: int, found: _Found, **origin: Any
) -> None:
    checkpoint = found.checkpoint
    facts = exactness_facts()
    step = checkpoint.step if checkpoint else 0
    telemetry.write(
        "launch",
        step,
        launch=number,
        resumed_step=checkpoint.step if checkpoint else None,
        steps=recipe.train.steps,
        recipe_sha256=recipe.sha256,
        fit=fit.to_json(),
        boot_id=boot_id(),
        code_version=ondevice.__version__,
        inexact=_changed_facts(checkpoint, facts),
        **facts,
        **origin,
    )
    for sentence in found.damage:
        telemetry.write("note", step, text=f"Skipped a damaged checkpoint: {sentence}")


def _changed_facts(checkpoint: Checkpoint | None, facts: dict[str, Any]) -> list[str]:
    """What differs from the checkpoint's maker and may change bits from here on."""
    if checkpoint is None:
        return []
    return [
        f"{key}: {checkpoint.facts.get(key)} -> {now}" for key, now in facts.items() if checkpoint.facts.get(key) != now
    ]


def _drop_expired_letters(run: RunDir, telemetry: TelemetryWriter, step: int, began_t: float) -> None:
    """Letters written while this launch was getting ready are for it; older ones asked something of another."""
    for letter in control.pending(run):
        if letter.fault or (letter.verb in control.EXPIRING and letter.t < began_t):
            why = letter.fault or "written before this launch"
            telemetry.write("control", step, id=letter.id, verb=letter.verb, ok=False, why=why)
            control.discard(run, letter)


def _read_limits(run: RunDir) -> tuple[Limits, list[str]]:
    """``limits.json`` where there is one, else the limits of the config the run began with; and what was wrong."""
    why = []
    if run.limits.exists():
        try:
            return read_limits(run.limits), []
        except DataError as error:
            why.append(f"{error} The limits of config.toml hold; `ondevice doctor {run.name}` looks for the lost ones.")
    return parse_config(run.config.read_text("utf-8"), where=str(run.config), base=run.path).limits, why
