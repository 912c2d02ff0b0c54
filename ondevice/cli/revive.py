"""Brings a killed run back: judges from its papers whether its trainer should be started again, and starts it.

Never two trainers: the run's own lock decides. Never two who restart: ``watch.lock``, held through flock. What a person
paused, stopped or gave up stays as it is; what left because it had to wait for long goes on when the governor lets it.
The trainer gets a session of its own and outlives whoever started it.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import Any

from ondevice.cli.limit import limits_of
from ondevice.device.battery import NO_BATTERY
from ondevice.device.host import RELAUNCHED, on_android
from ondevice.device.readings import settled_reading
from ondevice.device.vitals import read_scene
from ondevice.errors import OndeviceError, RunBusy
from ondevice.governor.order import Order
from ondevice.run.directory import RunDir, list_runs, lock_holder
from ondevice.run.files import make_folder, write_error
from ondevice.run.liveness import read_liveness, read_status
from ondevice.run.postmortem import examine, fruitless_deaths

__all__ = ["MOST_DEATHS", "Reviver", "Verdict", "WatchLock", "judge", "wait_before"]

FIRST_WAIT_S, LONGEST_WAIT_S = 10.0, 600.0
MOST_DEATHS = 8  # enough for a fit to shrink to its floor
STARTING_S = 60.0  # importing torch takes a cheap phone half of this
LOOK_EVERY_S = 60.0  # whether a run that left may go on: asking the sensors takes a phone seconds
_TAIL = 4096


class WatchLock:
    """The right to restart one run, held until the process ends, however it ends."""

    def __init__(self, run: RunDir) -> None:
        """Raises RunBusy naming the holder."""
        path = run.path / "watch.lock"
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise write_error(path, error) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 200, 0).decode("utf-8", "replace").strip() or "unknown"
            self.release()
            raise RunBusy(
                f"{run.name}: another process already brings this run back after a kill ({holder})."
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"ondevice watch, pid {os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What to do with a run, and why: ``start`` it, ``wait`` for ``wait_s``, ``leave`` it as it neither was killed nor
    left for a while, or as it is ``held`` by a person, or ``give up``."""

    do: str
    why: str
    wait_s: float = 0.0


def wait_before(deaths: int) -> float:
    """Seconds between a death and the next try, by how many launches in a row died without saving anything."""
    return float(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** max(0, deaths - 1)))


def judge(run: RunDir, *, more_deaths: int = 0) -> Verdict:
    """Whether a run is to be started again. ``more_deaths``: starts that died too early to leave a trace in the run.

    Raises DataError when its story cannot be read.
    """
    alive = read_liveness(run)
    if alive.state != "killed" and alive.left is None:
        return Verdict(do="leave", why=alive.state)
    if hold := read_status(run).get("hold"):
        gone = "killed" if alive.left is None else "left"
        return Verdict(do="held", why=f"{gone} while it was {hold}; `ondevice train {run.name}` lets it go on")
    if alive.left is not None:
        return _after_leaving(run, alive.left)
    deaths = fruitless_deaths(run) + more_deaths
    if deaths >= MOST_DEATHS:
        return Verdict(
            do="give up",
            why=f"{deaths} launches in a row were killed before they saved anything; free memory, or save more often "
            f"with `ondevice train {run.name} --set limits.save_every_s=60`",
        )
    if no_room := _no_room(run):
        return no_room
    death = examine(run, read_scene())
    age_s = time.time() - death.t if death is not None and death.t is not None else -1.0
    if 0.0 <= age_s < wait_before(deaths):  # else the clock was set back, and nobody knows
        return Verdict(do="wait", why="a pause between tries", wait_s=wait_before(deaths) - age_s)
    return Verdict(do="start", why=death.why if death is not None else "killed")


def _no_room(run: RunDir) -> Verdict | None:
    if not on_android(os.environ):
        return None
    other = next((other.name for other in list_runs() if other.path != run.path and lock_holder(other)), "")
    return Verdict(do="wait", why=f"{other} is training, and a phone has room for one") if other else None


def _after_leaving(run: RunDir, end: dict[str, Any]) -> Verdict:
    """A run that left for a while goes on when nothing speaks against work any more, by its limits of now."""
    if no_room := _no_room(run):
        return no_room
    order, now = _order_for(run, empty=end.get("empty") is True), time.time()
    if order.kind == "run":
        return Verdict(do="start", why="nothing speaks against work any more")
    wait_s = order.until_t - now if order.until_t is not None else LOOK_EVERY_S
    return Verdict(do="wait", why=order.reason.rstrip("."), wait_s=max(1.0, wait_s))


def _order_for(run: RunDir, *, empty: bool) -> Order:
    """What the governor would say to a launch of now. ``empty``: the run left until the battery is charged enough."""
    from ondevice.governor.decide import decide
    from ondevice.governor.history import begin

    reading, handheld = settled_reading(run.path), on_android(os.environ)
    battery = handheld or reading.unknown.get("battery_percent") != NO_BATTERY
    history = begin(handheld=handheld, battery=battery)
    history = replace(history, power=replace(history.power, waiting=empty))
    return decide(reading, limits_of(run), history, time.time())[0]


class Reviver:
    """Restarts one run, as often as it is worth it. Raises RunBusy where another process does already."""

    def __init__(self, run: RunDir) -> None:
        self.run = run
        self._lock = WatchLock(run)
        self._child: subprocess.Popen[bytes] | None = None
        self._launch = 0  # the launch that the child would be
        self._stillborn = 0
        self._waits: Verdict | None = None
        self._look_s = 0.0

    @property
    def starting(self) -> bool:
        """Whether a trainer was started that has not taken the run's lock yet."""
        return self._child is not None and self._child.poll() is None and lock_holder(self.run) is None

    def look(self) -> Verdict:
        """Judges, and starts the trainer if that is the verdict. ``give up`` may also say why it refuses to start."""
        if self.starting:
            return Verdict(do="wait", why="its trainer is starting", wait_s=1.0)
        if refusal := self._read_fate():
            return Verdict(do="give up", why=refusal)
        left = read_liveness(self.run).left is not None
        if left and self._waits is not None and time.monotonic() < self._look_s:
            return self._waits
        verdict = judge(self.run, more_deaths=self._stillborn)
        self._waits, self._look_s = (verdict if left else None), time.monotonic() + LOOK_EVERY_S
        if verdict.do == "start":
            self._waits = None
            self._start()
        return verdict

    def await_start(self) -> str:
        """Waits until the started trainer holds the run or is gone; gives why it refused, "" if it did not."""
        until = time.monotonic() + STARTING_S
        while self.starting and time.monotonic() < until:
            time.sleep(0.1)
        return self._read_fate()

    def close(self) -> None:
        """Gives the lock back; a trainer that runs goes on."""
        self._lock.release()
        if self._child is not None and self._child.poll() is None:
            self._child.returncode = 0  # not ours any more; else Python warns that it still runs

    def _start(self) -> None:
        run = self.run
        log = run.logs / "trainer.log"
        self._launch = run.next_launch()
        try:
            make_folder(run.logs)
            with open(log, "ab") as out:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "ondevice", "train", str(run.path), "--keep-hold", "--quiet"],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                    env={**os.environ, RELAUNCHED: "1"},
                    start_new_session=True,
                )
        except OSError as error:
            raise OndeviceError(f"{run.name}: its trainer cannot be started ({error.strerror or error}).") from error

    def _read_fate(self) -> str:
        """What became of the child, once it is gone: why it refused to start, or "" where its story tells the rest."""
        if self._child is None or self._child.poll() is None:
            return ""
        code, self._child = self._child.returncode, None
        if self.run.next_launch() > self._launch:
            self._stillborn = 0
            return ""
        if code < 0:
            self._stillborn += 1
        refused = code > 0 and code != RunBusy.exit_code  # busy: someone else was faster, which is well
        return f"its trainer does not start (exit code {code}): {self._last_words()}" if refused else ""

    def _last_words(self) -> str:
        try:
            with open(self.run.logs / "trainer.log", "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return "without a word"
        return next((line.removeprefix("error: ") for line in reversed(lines) if line.strip()), "without a word")
