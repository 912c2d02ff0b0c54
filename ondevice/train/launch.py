"""One launch of a run: takes the lock, restores or makes the state, and hands everything to the loop.

It finds out first how the launch before it ended, which decides the fit (``ondevice.train.refit``), and says in its
``launch`` record where it goes on from and whether bit-exactness holds. Whatever ends it but a kill is told as well.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

import ondevice
from ondevice.data.parcel import open_dataset
from ondevice.device.readings import Sensors
from ondevice.device.simulate_wish import DeviceWish
from ondevice.device.vitals import read_scene
from ondevice.errors import CheckpointError, DataError, OndeviceError
from ondevice.governor.presets import check
from ondevice.run import control
from ondevice.run.audit import story_end
from ondevice.run.config import parse_config, read_limits
from ondevice.run.directory import RunDir, RunGone, RunLock, boot_id
from ondevice.run.files import read_json
from ondevice.run.liveness import read_status
from ondevice.run.migrate import migrate
from ondevice.run.papers import changed_papers, environment
from ondevice.run.postmortem import examine, previous
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.revision import complete
from ondevice.run.schema import Config, Limits
from ondevice.run.store import Checkpoint, Store
from ondevice.run.telemetry import TelemetryWriter, as_number, launch_files
from ondevice.run.vocabulary import read_kept
from ondevice.train.begin import make_state, prepare_torch
from ondevice.train.caching import keep_states
from ondevice.train.checkpoint import exactness_facts
from ondevice.train.compiler import check_compiler
from ondevice.train.desk import Desk, Display
from ondevice.train.ending import Outcome, tell_end
from ondevice.train.frozen_cache import remove_cache
from ondevice.train.keeper import Keeper
from ondevice.train.loop import Loop
from ondevice.train.orders import Orders
from ondevice.train.pacer import Pacer
from ondevice.train.parts import WHOLE, Chain, Errand
from ondevice.train.pulse import Pulse
from ondevice.train.refit import Decision, Device, decide, differences
from ondevice.train.refit_live import Refitter
from ondevice.train.remember import take_up
from ondevice.train.signals import Signals
from ondevice.train.warming import made_engine
from ondevice.train.worlds import make_world

__all__ = ["launch", "make_loop"]


def launch(
    run: RunDir,
    *,
    display: Display,
    keep_hold: bool = False,
    refit: bool = False,
    device: DeviceWish | None = None,
    errand: Errand = WHOLE,
) -> Outcome:
    """Trains a run to its end or until asked to leave.

    ``keep_hold``: an automatic restart stays paused; a person who starts the run clears the hold. ``refit``: choose
    the fit anew for this device. ``device``: live on a simulated one. ``errand``: how much of a chain.
    Raises RunBusy, CheckpointError, DataError, DeviceError or ResourceError.
    """
    lock = RunLock(run)
    try:
        with Signals() as signals:
            loop = make_loop(
                run,
                display=display,
                keep_hold=keep_hold,
                signals=signals,
                refit=refit,
                device=device,
                errand=errand,
            )
            return _launch(run, loop)
    finally:
        lock.release()


def _launch(run: RunDir, loop: Loop) -> Outcome:
    try:
        outcome = loop.run_to_end()
        if outcome.outcome == "finished":
            remove_cache(run.path / "cache")
        return outcome
    except RunGone as error:  # its story is open still, wherever it lies now
        loop.telemetry.write("end", loop.state.step, outcome="failed", why=str(error))
        raise
    except (Exception, KeyboardInterrupt) as error:
        tell_end(run.name, loop.telemetry, loop.state.step, error)
        raise
    finally:
        loop.telemetry.close()
        if loop.engine.below is not None and loop.engine.below.cache is not None:
            loop.engine.below.cache.close()


def make_loop(
    run: RunDir,
    *,
    display: Display,
    keep_hold: bool = False,
    signals: Signals | None = None,
    refit: bool = False,
    device: DeviceWish | None = None,
    errand: Errand = WHOLE,
) -> Loop:
    """Everything a launch needs, restored or made, and its ``launch`` record written. The caller holds the lock."""
    old = {letter.file for letter in control.pending(run)}  # by name: a clock set back makes old stamps look new
    notes = [*migrate(run)]
    complete(run)
    notes += changed_papers(run, run.read_identity())
    recipe = run.read_recipe()
    check_compiler(recipe, run.name)
    dataset = open_dataset(recipe.data)
    found = _find_checkpoint(run, display)
    limits, why = _read_limits(run)
    check(limits)
    before = _look_back(run, recipe, found, limits, refit=refit)
    fit, step, number = before.decision.fit, found.step, run.next_launch()
    prepare_torch(fit, recipe)
    last = read_status(run)
    hold, before_s = str(last.get("hold") or "") if keep_hold else "", as_number(last.get("step_s"))
    story = _previous_story(run)
    sensors = Sensors(run.path)
    world = make_world(run, device, sensors)
    telemetry = TelemetryWriter(run.telemetry, number, sim_clock=world.now if world.simulated else None)
    try:
        origin = {**_origin(run), **_settings(run, None if why else limits), "simulated": world.simulated}
        origin |= errand.told if recipe.data.parts else {}
        _tell_launch(telemetry, recipe, before, number, found, previous_story=story, **origin)
        for sentence in [*before.said, *notes, *why]:
            telemetry.write("note", step, text=sentence)
            display.say(sentence)
        with suppress(OndeviceError):  # a full disk is met by the loop, which knows how to wait
            telemetry.sync()
        chain = Chain(run, recipe, telemetry, config=_chain_wish(run, recipe), goal=errand.goal)
        pulse = Pulse(run, recipe, launch=number, step=step, story=telemetry, world=world)
        if world.simulated:
            pulse.note(simulated=world.simulated)
        pulse.beat(state="running", step=step, tokens=_tokens(recipe, step), hold=hold)
        state = make_state(recipe, dataset, fit, found.checkpoint, kept=read_kept(run, recipe))
        engine = made_engine(state, recipe, fit, telemetry=telemetry, display=display)
    except (Exception, KeyboardInterrupt) as error:  # from its record on a launch has an end
        tell_end(run.name, telemetry, step, error)
        telemetry.close()
        raise
    _drop_expired_letters(run, telemetry, step, old)
    store = Store(run.checkpoints)
    pulse.begin()
    pulse.note(best_step=state.best_step, best_loss=state.best_loss, **chain.told)
    full_threads, piece_s = before.decision.full_threads, _piece_s(before_s, recipe, fit)
    pacer = Pacer(world, threads=fit.threads, full_threads=full_threads, micro_batch=fit.micro_batch, piece_s=piece_s)
    remembered, forgotten = take_up(run, pacer.history, world, status=last)
    pacer.take_up(remembered)
    if forgotten:
        telemetry.write("note", step, text=forgotten)
    if _wish(run).fit.frozen_cache and (
        told := keep_states(engine.below, run, recipe, limits, rows=state.cursor.packed_rows)
    ):
        display.say(told)
    desk = Desk(
        run=run,
        limits=limits,
        orders=Orders(hold=hold),
        telemetry=telemetry,
        pulse=pulse,
        store=store,
        signals=signals or Signals(),
        world=world,
        pacer=pacer,
        display=display,
    )
    return Loop(
        recipe=recipe,
        fit=fit,
        state=state,
        engine=engine,
        dataset=dataset,
        desk=desk,
        refitter=Refitter(recipe=recipe, fit=fit, engine=engine, desk=desk, pacer=pacer),
        keeper=Keeper(store, world, saved_step=state.step, clock=world.monotonic, promoted=chain.ends),
        chain=chain,
        launch=number,
    )


@dataclass(frozen=True)
class _Found:
    checkpoint: Checkpoint | None
    damage: list[str]

    @property
    def step(self) -> int:
        return self.checkpoint.step if self.checkpoint else 0


def _find_checkpoint(run: RunDir, display: Display) -> _Found:
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
    return _Found(checkpoint, damage)


@dataclass(frozen=True)
class _Before:
    """How the last launch ended and what follows from it. ``ended`` goes into the record, ``said`` to a person."""

    ended: dict[str, Any] | None
    decision: Decision
    device: Device
    said: list[str]


def _look_back(run: RunDir, recipe: Recipe, found: _Found, limits: Limits, *, refit: bool) -> _Before:
    """Finds out how the last launch ended and chooses the fit of this one."""
    torch.set_flush_denormal(True)  # before the first parallel operation of timed steps, or it covers one thread only
    death, device = examine(run, read_scene(), held=True), Device.here(limits)
    ended = previous(run, death, resumed_step=found.step)
    decision = decide(run, recipe, found.checkpoint, death=death, limits=limits, device=device, asked=refit)
    told = [death.sentence(ended["steps_lost"])] if death and ended else []
    return _Before(ended=ended, decision=decision, device=device, said=[*told, *decision.said])


def _piece_s(step_s: float | None, recipe: Recipe, fit: Fit) -> float:
    """Seconds of one micro-batch when a step took ``step_s``; 0 where nobody knows."""
    return (step_s or 0.0) / math.ceil(recipe.train.batch / fit.micro_batch)


def _tokens(recipe: Recipe, step: int) -> int:
    """Tokens learned from when ``step`` is done."""
    train = recipe.train
    return train.start_tokens + max(0, step - train.start_step) * train.batch * recipe.model.context


def _origin(run: RunDir) -> dict[str, Any]:
    """Where the run comes from and what started this launch: enough to mend ``run.json`` and ``config.toml``."""
    return {
        "identity": run.read_identity(),
        "config": run.config.read_text("utf-8", "replace"),
        "command": sys.argv,
        "environment": environment(),
        "measured": _measured_step(run),
    }


def _measured_step(run: RunDir) -> dict[str, Any] | None:
    """What a step took that was made before the run was, as ``fit.json`` says; None: none was, or it is damaged."""
    with suppress(DataError):
        raw = read_json(run.fit)
        return raw.get("measured") if isinstance(raw, dict) else None
    return None


def _settings(run: RunDir, limits: Limits | None) -> dict[str, Any]:
    """What holds from here on and which checkpoints there are, so that a later loss is noticed; None: it is damaged."""
    store = Store(run.checkpoints)
    pins: dict[str, str] | None = None
    with suppress(CheckpointError):
        pins = {str(step): reason for step, reason in store.pins().items()}
    return {"limits": limits and dataclasses.asdict(limits), "pins": pins, "checkpoints": store.steps()}


def _previous_story(run: RunDir) -> dict[str, Any] | None:
    """How far the story went before this launch, so that a cut of its file is noticed later."""
    files = launch_files(run.telemetry)
    return {**story_end(files[-1]), "size": files[-1].stat().st_size} if files else None


def _tell_launch(
    telemetry: TelemetryWriter, recipe: Recipe, before: _Before, number: int, found: _Found, **origin: Any
) -> None:
    checkpoint, decision = found.checkpoint, before.decision
    telemetry.write(
        "launch",
        found.step,
        launch=number,
        resumed_step=checkpoint.step if checkpoint else None,
        resumed_sha256=checkpoint.sha256 if checkpoint else None,
        steps=recipe.train.steps,
        recipe_sha256=recipe.sha256,
        fit=decision.fit.to_json(),
        full_threads=decision.full_threads,
        previous=before.ended,
        boot_id=boot_id(),
        cores=before.device.cores,
        memory_total_mb=before.device.total_mb,
        code_version=ondevice.__version__,
        inexact=_inexact(checkpoint, decision, recipe),
        **exactness_facts(recipe),
        **origin,
    )
    if decision.changes:
        old, new = decision.before.to_json(), decision.fit.to_json()
        telemetry.write("fit", found.step, old=old, new=new, why=decision.why, exact_from=found.step)
    for sentence in found.damage:
        telemetry.write("note", found.step, text=f"Skipped a damaged checkpoint: {sentence}")


def _inexact(checkpoint: Checkpoint | None, decision: Decision, recipe: Recipe) -> list[str]:
    """What differs from the checkpoint's maker and may change bits from here on."""
    if checkpoint is None:
        return [f"fit.{change}" for change in decision.changes]
    made = Fit.from_json(checkpoint.facts.get("fit"), where=str(checkpoint.path / "manifest.json"))
    told, facts = decision.told, exactness_facts(recipe)
    if told is not None and (told.step, told.fit) == (checkpoint.step, decision.fit):
        made, _ = told.fit, facts.pop("threads")  # it changed right after that save, and exactness began anew there
    changed = [
        f"{key}: {checkpoint.facts.get(key)} -> {now}" for key, now in facts.items() if checkpoint.facts.get(key) != now
    ]
    return changed + [f"fit.{change}" for change in differences(made, decision.fit)]


def _drop_expired_letters(run: RunDir, telemetry: TelemetryWriter, step: int, old: set[str]) -> None:
    """Letters written while this launch was getting ready are for it; older ones asked something of another."""
    for letter in control.pending(run):
        if letter.fault or (letter.verb in control.EXPIRING and letter.file in old):
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
    return _config(run).limits, why


def _chain_wish(run: RunDir, recipe: Recipe) -> Config:
    """How a chain is to go on; where that was damaged, to its end."""
    return _wish(run) if recipe.data.parts else Config()


def _wish(run: RunDir) -> Config:
    """What was wished for; nothing, where that was damaged."""
    with suppress(OndeviceError):
        return _config(run)
    return Config()


def _config(run: RunDir) -> Config:
    return parse_config(run.config.read_text("utf-8"), where=str(run.config), base=run.path)
