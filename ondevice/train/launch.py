"""One launch of a run: takes the lock, restores or makes the state, and hands everything to the loop.

What it finds of the run is in ``ondevice.train.launch_found``, what its record says in ``launch_record``. Whatever ends
it but a kill is told as well.
"""

from __future__ import annotations

import math
from contextlib import suppress

from ondevice.data.parcel import open_dataset
from ondevice.device.readings import Sensors
from ondevice.device.simulate_wish import DeviceWish
from ondevice.errors import OndeviceError
from ondevice.governor.presets import check
from ondevice.run import control
from ondevice.run.directory import RunDir, RunGone, RunLock
from ondevice.run.liveness import read_status
from ondevice.run.migrate import migrate
from ondevice.run.papers import changed_papers
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.revision import complete
from ondevice.run.store import Store
from ondevice.run.telemetry import TelemetryWriter, as_number
from ondevice.run.vocabulary import read_kept
from ondevice.train.begin import make_state, prepare_torch
from ondevice.train.caching import keep_states
from ondevice.train.compiler import check_compiler
from ondevice.train.desk import Desk, Display
from ondevice.train.ending import Outcome, tell_end
from ondevice.train.frozen_cache import remove_cache
from ondevice.train.keeper import Keeper
from ondevice.train.launch_found import chain_wish, find_checkpoint, limits_that_hold, look_back, readable_wish
from ondevice.train.launch_record import story_before, tell_launch
from ondevice.train.loop import Loop
from ondevice.train.orders import Orders
from ondevice.train.pacer import Pacer
from ondevice.train.parts import WHOLE, Chain, Errand
from ondevice.train.pulse import Pulse
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
    found = find_checkpoint(run, display)
    limits, why = limits_that_hold(run)
    check(limits)
    before = look_back(run, recipe, found, limits, refit=refit)
    fit, step, number = before.decision.fit, found.step, run.next_launch()
    prepare_torch(fit, recipe)
    last = read_status(run)
    hold, before_s = str(last.get("hold") or "") if keep_hold else "", as_number(last.get("step_s"))
    story = story_before(run)
    sensors = Sensors(run.path)
    world = make_world(run, device, sensors)
    telemetry = TelemetryWriter(run.telemetry, number, sim_clock=world.now if world.simulated else None)
    try:
        tell_launch(
            telemetry,
            run,
            recipe,
            number=number,
            found=found,
            before=before,
            limits=None if why else limits,
            previous_story=story,
            simulated=world.simulated,
            **(errand.told if recipe.data.parts else {}),
        )
        for sentence in [*before.said, *notes, *why]:
            telemetry.write("note", step, text=sentence)
            display.say(sentence)
        with suppress(OndeviceError):  # a full disk is met by the loop, which knows how to wait
            telemetry.sync()
        chain = Chain(run, recipe, telemetry, config=chain_wish(run, recipe), goal=errand.goal)
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
    if readable_wish(run).fit.frozen_cache and (
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


def _piece_s(step_s: float | None, recipe: Recipe, fit: Fit) -> float:
    """Seconds of one micro-batch when a step took ``step_s``; 0 where nobody knows."""
    return (step_s or 0.0) / math.ceil(recipe.train.batch / fit.micro_batch)


def _tokens(recipe: Recipe, step: int) -> int:
    """Tokens learned from when ``step`` is done."""
    train = recipe.train
    return train.start_tokens + max(0, step - train.start_step) * train.batch * recipe.model.context


def _drop_expired_letters(run: RunDir, telemetry: TelemetryWriter, step: int, old: set[str]) -> None:
    """Letters written while this launch was getting ready are for it; older ones asked something of another."""
    for letter in control.pending(run):
        if letter.fault or (letter.verb in control.EXPIRING and letter.file in old):
            why = letter.fault or "written before this launch"
            telemetry.write("control", step, id=letter.id, verb=letter.verb, ok=False, why=why)
            control.discard(run, letter)
