"""What happens at a safe point: letters are answered, sensors read, the status told, and a held run waits.

The loop comes by and goes on; the desk never calls it. It owns the limits that hold now and the standing orders.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from ondevice.device.world import World
from ondevice.errors import OndeviceError
from ondevice.run import control
from ondevice.run.config import write_limits
from ondevice.run.directory import Place, RunDir
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.run.telemetry import TelemetryWriter
from ondevice.train.keeper import Saved
from ondevice.train.orders import Orders, obey
from ondevice.train.pacer import Pacer
from ondevice.train.pulse import Pulse
from ondevice.train.remember import keep
from ondevice.train.senses import Senses
from ondevice.train.signals import Signals

__all__ = ["Desk", "Display"]

INBOX_EVERY_S = 0.25
READING_EVERY_S = 30.0


class Display(Protocol):
    """Who watches in the terminal. It is told things; nothing comes back."""

    def status(self, status: dict[str, Any]) -> None: ...

    def say(self, text: str) -> None: ...


class Desk:
    """One launch's contact with the outside."""

    def __init__(
        self,
        *,
        run: RunDir,
        limits: Limits,
        orders: Orders,
        telemetry: TelemetryWriter,
        pulse: Pulse,
        store: Store,
        signals: Signals,
        world: World,
        pacer: Pacer,
        display: Display,
    ) -> None:
        self.limits, self.orders = limits, orders
        self.telemetry, self.pulse, self.display = telemetry, pulse, display
        self._run, self._store, self._signals, self.world = run, store, signals, world
        self._pacer, self._senses = pacer, Senses()
        self.place = Place(run)
        self._inbox_at, self._reading_at = 0.0, float("-inf")
        self._worked_at = world.monotonic()
        self.pulse.outlook.limits = limits

    def safe_point(self, *, step: int, tokens: int, piece: bool = False) -> float:
        """Answers, tells, and stands still while the run is held and has nothing to do, or as the governor orders.

        ``piece``: a micro-batch just ended. Gives the seconds it stood still.
        """
        self._pacer.after(self.world.monotonic() - self._worked_at, piece=piece)
        began = self.world.monotonic()
        self._look(step)
        self._beat(self._state, step, tokens)
        still = self._stand_still(step, tokens)
        self._begin_work()
        return self._worked_at - began if still else 0.0

    def _begin_work(self) -> None:
        self._worked_at = self.world.monotonic()
        self._pacer.before()

    def _stand_still(self, step: int, tokens: int) -> bool:
        """Whether there was anything to wait for."""
        still = False
        while (state := self._still()) and not self.orders.stop:
            still, began = True, self.world.monotonic()
            self._beat(state, step, tokens)
            look_s, owed_s = self.world.look_s, self._pacer.owed_s
            rest_s = min(look_s, owed_s) if state == "resting" and owed_s > 0.0 else look_s
            self.world.sleep(rest_s)
            self._look(step)
            # Looking around, and waking up late, is rest too; a clock is coarser than the last bit of a debt.
            self._pacer.rested(max(rest_s, self.world.monotonic() - began))
        if still:
            self._beat(self._state, step, tokens)
        return still

    def _still(self) -> str:
        """Why it stands still now: ``waiting``, ``resting``, or empty."""
        if self._must_wait():
            return "waiting"
        order = self._pacer.order
        if self.orders.asked or order is None:
            return ""
        if order.kind == "wait":
            return "" if self.orders.busy else "waiting"
        return "resting" if order.kind == "rest" or self._pacer.owed_s > 0.0 else ""

    def _look(self, step: int) -> None:
        self._read_inbox(step)
        self._read_sensors(step)
        self._ask_governor(step)

    def _ask_governor(self, step: int) -> None:
        order, news = self._pacer.decide(self.limits)
        if order.kind == "leave" and not self.orders.stop:
            self.orders.stop = self.orders.leave = order.reason
        if not news:
            return
        self.orders.save = self.orders.save or order.save
        self.telemetry.write("order", step, order=order.kind, duty=round(order.duty, 3), why=order.reason)
        self.pulse.note(
            wait=order.reason if order.kind != "run" else None, duty=round(order.duty, 3), until_t=order.until_t
        )
        self.display.say(order.reason)

    @contextmanager
    def waiting(self, why: str, *, step: int, tokens: int) -> Iterator[None]:
        """Tells that training stands still and why, and when it goes on."""
        began = self.world.monotonic()
        self.telemetry.write("order", step, order="wait", why=why)
        try:
            yield
        finally:
            self.telemetry.write("order", step, order="go", waited_s=round(self.world.monotonic() - began, 3))
            self.pulse.note(wait=None)
            self._beat(self._state, step, tokens, force=True)

    def wait(self, why: str, *, seconds: float, step: int, tokens: int) -> None:
        """Waits, answering letters, until the time is over, the limits change or someone asks to leave."""
        until, limits = self.world.monotonic() + seconds, self.limits
        self.pulse.note(wait=why, last_error=why)
        self._beat("waiting", step, tokens, force=True)
        while self.world.monotonic() < until and self.limits is limits and not self.orders.stop:
            self._beat("waiting", step, tokens)
            self.world.sleep(self.world.look_s)
            self._read_inbox(step)
            self._read_sensors(step)
        self._begin_work()  # standing still is no work

    def tell_save(self, step: int, saved: Saved | None, fault: OndeviceError | None, warnings: list[str]) -> None:
        """Tells of a save that ended, at ``step`` of the training."""
        if saved is None:
            self.trouble(step, str(fault))
        else:
            fields = {key: value for key, value in vars(saved).items() if key != "step"}
            self.telemetry.write("checkpoint", saved.step, **fields)
            self.pulse.note(saved_step=saved.step, last_error=None)
            self._remember()
        for text in warnings:
            self.trouble(step, text)

    def trouble(self, step: int, text: str, **more: Any) -> None:
        """Tells of something that went wrong and did not end the run; ``more`` goes into the record."""
        self.telemetry.write("note", step, text=text, **more)
        self.pulse.note(last_error=text)
        self.display.say(text)

    def parting(self) -> dict[str, Any]:
        """What the ``end`` record adds where the run leaves to be started again: when, where that is known, and whether
        it waits for the battery to be charged."""
        if not self.orders.returns:
            return {}
        order = self._pacer.order
        return {"leave": True, "until_t": order.until_t if order else None, "empty": self._pacer.empty}

    def last_word(self, outcome: str, *, step: int, tokens: int) -> None:
        """The status that stays when the process is gone."""
        self._remember()
        try:
            self.telemetry.sync()
        except OndeviceError as error:
            self.display.say(str(error))
        self.pulse.beat(state=outcome, step=step, tokens=tokens, hold=self.orders.hold, force=True)

    def _remember(self) -> None:
        """What was learned of heat is worth no trouble: a launch without it only begins more carefully."""
        with suppress(OndeviceError):
            keep(self._run, self._pacer.history, self.world)

    @property
    def _state(self) -> str:
        """A held run that does what it was asked is still a held one."""
        return "waiting" if self.orders.hold and not self.orders.stop else "running"

    def _must_wait(self) -> bool:
        return bool(self.orders.hold) and not (self.orders.stop or self.orders.asked or self.orders.busy)

    def _beat(self, state: str, step: int, tokens: int, *, force: bool = False) -> None:
        status = self.pulse.beat(state=state, step=step, tokens=tokens, hold=self.orders.hold, force=force)
        if status is not None:
            self.display.status(status)

    def _read_inbox(self, step: int) -> None:
        now = time.monotonic()  # people wait by the clock on the wall
        if self._signals.received and not self.orders.stop:
            self.orders.stop = f"asked by {self._signals.received}"
        if now - self._inbox_at < INBOX_EVERY_S:
            return
        self._inbox_at = now
        self.place.check()  # no letter reaches a trainer whose run lies elsewhere now
        for letter in control.pending(self._run):
            limits, answer = obey(letter, self.orders, self.limits, self._store)
            if limits != self.limits:
                self._change_limits(limits, step)
            self.telemetry.write("control", step, **answer)
            control.discard(self._run, letter)

    def _change_limits(self, limits: Limits, step: int) -> None:
        self.limits = self.pulse.outlook.limits = limits
        try:
            write_limits(self._run.limits, limits)
        except OndeviceError as error:
            self.trouble(step, f"The new limits hold until this launch ends: {error}", lost="limits")

    def _read_sensors(self, step: int) -> None:
        now = self.world.monotonic()
        if now - self._reading_at < READING_EVERY_S:
            return
        self._reading_at, felt = now, self.world.read()
        reading = {key: value for key, value in felt.to_json().items() if key != "t"}
        self.telemetry.write("reading", step, **reading, **self.world.memory())
        for sentence in self._senses.changes(felt):
            self.telemetry.write("note", step, text=sentence)
            self.display.say(sentence)
        self.pulse.feel(reading)
        rss_mb, limit_mb = reading.get("rss_mb"), self.limits.max_rss_mb
        if rss_mb and limit_mb and rss_mb > limit_mb and not self.orders.stop:
            self.orders.stop = f"memory {rss_mb:,.0f} MB passed limits.max_rss_mb {limit_mb:,.0f}"
