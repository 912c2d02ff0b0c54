"""Trains a chain, launch after launch: tries a failing part again after a pause, then stops or skips it by policy.

A launch that got nowhere counts as a try whoever began it and however it ended, so that a part which kills the trainer
cannot be tried for ever by watchers either; only a person who starts the run begins to count anew. Decides nothing
inside a launch: `ondevice.train.parts` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ondevice.device.simulate_wish import DeviceWish
from ondevice.errors import CheckpointError, DeviceError, Interrupted, OndeviceError, ResourceError, RunBusy, UsageError
from ondevice.run import control
from ondevice.run.directory import RunDir, RunGone, RunLock, offline_lock
from ondevice.run.part_story import Tail
from ondevice.run.schedule import Unfolding
from ondevice.run.schema import Config
from ondevice.run.store import Store
from ondevice.run.telemetry import launch_files, read_end
from ondevice.run.verify_story import launch_records
from ondevice.train.chain_plan import stalled
from ondevice.train.desk import Display
from ondevice.train.ending import Outcome
from ondevice.train.grow import grow
from ondevice.train.launch import launch
from ondevice.train.launch_found import readable_wish
from ondevice.train.parts import Errand
from ondevice.train.revise import drop_stage, skip_part

__all__ = ["pause_before", "train"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 10.0, 600.0
_NOT_OF_THE_PART = (RunBusy, CheckpointError, DeviceError, ResourceError, RunGone, Interrupted, UsageError)


def train(
    run: RunDir,
    *,
    display: Display,
    parts: int | None = None,
    keep_hold: bool = False,
    refit: bool = False,
    device: DeviceWish | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Outcome:
    """Trains a run: ``parts`` more parts of a chain, or to its end. ``keep_hold``: started again by a program.

    Raises what `launch` raises; for a part that fails again and again what it failed with, in one sentence.
    """
    if not run.read_recipe().data.parts:
        if parts is not None:
            raise UsageError(f"{run.name}: --parts is for a run that has parts; set chain.parts when you make one.")
        return launch(run, display=display, keep_hold=keep_hold, refit=refit, device=device)
    policy = _Policy(run, readable_wish(run), display)
    errand = Errand(goal=_goal(run, parts, keep_hold=keep_hold), fresh=not keep_hold)
    while True:
        policy.prepare(count=not errand.fresh)
        if errand.fresh:
            policy.grow()
        attempt = partial(launch, run, display=display, keep_hold=keep_hold, refit=refit, device=device, errand=errand)
        outcome, failure = _attempt(run, attempt)
        if failure is not None:
            pause_s = policy.after(failure)
            if pause_s and not _pause(run, pause_s, sleep):
                return Outcome(outcome="stopped", step=_reached(run), why="asked to stop between two tries")
            keep_hold = True
        elif outcome is not None and not outcome.stalled and not (outcome.outcome == "finished" and policy.grow()):
            return outcome
        errand, refit = replace(errand, fresh=False), False


def _attempt(run: RunDir, attempt: Callable[[], Outcome]) -> tuple[Outcome | None, OndeviceError | None]:
    """How a launch ended, or what the part failed with. Raises what is not of the part."""
    began = run.next_launch()
    try:
        outcome = attempt()
    except _NOT_OF_THE_PART:
        raise
    except OndeviceError as error:
        if run.next_launch() == began:  # it did not come so far as to try
            raise
        return None, error
    return (None, OndeviceError(outcome.why)) if outcome.outcome == "failed" else (outcome, None)


def pause_before(tries: int) -> float:
    """Seconds before a part is tried again that failed so often.

    >>> [pause_before(tries) for tries in (1, 2, 3)]
    [10.0, 20.0, 40.0]
    """
    return float(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** (tries - 1)))


def _goal(run: RunDir, parts: int | None, *, keep_hold: bool) -> int | None:
    """How many parts are to be done in all. A program that starts a killed run goes on with what a person asked."""
    if parts is not None:
        return _unfolded(run).schedule().done + parts
    files = launch_files(run.telemetry)
    if not keep_hold or not files:
        return None
    ended = any(record["kind"] == "end" and record.get("leave") is not True for record in read_end(files[-1]))
    last = next(launch_records(run), None)
    goal = last.get("parts_goal") if last and not ended else None
    return goal if type(goal) is int else None


def _unfolded(run: RunDir) -> Unfolding:
    unfolding = Unfolding(run.read_recipe())
    for record in Tail(run.telemetry).news():
        unfolding.see(record)
    return unfolding


def _reached(run: RunDir) -> int:
    return max(Store(run.checkpoints).steps(), default=0)


def _pause(run: RunDir, seconds: float, sleep: Callable[[float], object]) -> bool:
    """Waits as the run's trainer; gives False where it is asked to stop meanwhile."""
    lock = RunLock(run)
    try:
        while seconds > 0:
            sleep(min(1.0, seconds))
            seconds -= 1.0
            for letter in control.pending(run):
                if letter.verb == "stop" and not letter.fault:
                    control.discard(run, letter)
                    return False
    finally:
        lock.release()
    return True


class _Policy:
    """What becomes of failures and of stages that no longer get better."""

    def __init__(self, run: RunDir, config: Config, display: Display) -> None:
        self._run, self._config, self._display = run, config, display

    def prepare(self, *, count: bool) -> None:
        """Before a launch: leaves out what is to be left out. ``count``: launches before it were tries.

        Raises OndeviceError for a part that was tried often enough."""
        unfolding = _unfolded(self._run)
        if stage := stalled(unfolding.schedule(), self._config, step=_reached(self._run)):
            self._drop(stage)
            return
        if count and unfolding.fruitless > self._config.chain.retries:
            current = unfolding.schedule().current
            why = current.error if current is not None and current.error else "the trainer was killed in it"
            self._give_up(OndeviceError(why), unfolding)

    def grow(self) -> bool:
        """Adds parts of what is new in the folders of a run that grows; gives whether there were any."""
        if not self._config.chain.grow:
            return False
        with offline_lock(self._run, what="ondevice train"):
            grown = grow(self._run)
        for note in grown.notes:
            self._display.say(note)
        if grown.added:
            self._display.say(f"{len(grown.added)} parts are added, of {grown.files:,} new files.")
        return bool(grown.added)

    def after(self, failure: OndeviceError) -> float:
        """What a launch failed with: gives the pause before the next. Raises OndeviceError when there is none."""
        unfolding = _unfolded(self._run)
        if unfolding.fruitless > self._config.chain.retries:
            self._give_up(failure, unfolding)
            return 0.0
        pause_s, left = pause_before(unfolding.fruitless), self._config.chain.retries - unfolding.fruitless
        more = f"{left} more {'try' if left == 1 else 'tries'} after that" if left else "the last try"
        self._display.say(f"{self._part(unfolding)} failed: {failure} It is tried again in {pause_s:.0f} s ({more}).")
        return pause_s

    def _part(self, unfolding: Unfolding) -> str:
        current = unfolding.schedule().current
        return f"Part {current.name}" if current is not None else "The end"

    def _give_up(self, failure: OndeviceError, unfolding: Unfolding) -> None:
        tries, part, name = unfolding.fruitless, self._part(unfolding), self._run.name
        why = str(failure).rstrip(".")
        if self._config.chain.on_failure == "skip" and unfolding.schedule().current is not None:
            with offline_lock(self._run, what="ondevice train"):
                skip_part(self._run, f"tried {tries} times: {why}")
            self._display.say(f"{part} is skipped after {tries} tries: {why}.")
            return
        raise type(failure)(
            f"{name}: {part[0].lower()}{part[1:]} was tried {tries} times and the chain stops here: {why}. Mend that "
            f"and repeat `ondevice train {name}`, or leave the part out with `ondevice schedule skip {name}`."
        ) from failure

    def _drop(self, stage: str) -> None:
        why = f"the validation loss of stage '{stage}' no longer falls"
        with offline_lock(self._run, what="ondevice train"):
            count = drop_stage(self._run, stage, why)
        if count:
            self._display.say(f"{count} parts of stage '{stage}' are left out, as its validation loss no longer falls.")
