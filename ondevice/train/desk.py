"""What happens at a safe point: letters are answered, sensors read, the status told, and a held run waits.

The loop comes by and goes on; the desk never calls it. It owns the limits that hold now and the standing orders.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ondevice.device.readings import Sensors
from ondevice.errors import OndeviceError
from ondevice.run import control
from ondevice.run.config import write_limits
from ondevice.run.directory import RunDir
from ondevice.run.schema import Limits
from ondevice.run.store import Store
from ondevice.run.telemetry import TelemetryWriter
from ondevice.train.keeper import Saved
from ondevice.train.orders import Orders, obey
from ondevice.train.pacer import Pacer
from ondevice.train.pulse import Pulse
from ondevice.train.signals import Signals

__all__ = ["Desk", "Display"]

INBOX_EVERY_S = 0.25
READING_EVERY_S = 30.0
WAIT_S = 0.2


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
        sensors: Sensors,
        pacer: Pacer,
        display: Display,
    ) -> None:
        self.limits, self.orders = limits, orders
        self.telemetry, self.pulse, self.display = telemetry, pulse, display
        self._run, self._store, self._signals, self._sensors = run, store, signals, sensors
        self._pacer = pacer
        self._inbox_at, self._reading_at = 0.0, 0.0
        self._worked_at = time.monotonic()

    def safe_point(self, *, step: int, tokens: int, piece: bool = False) -> float:
        """Answers, tells, and stands still while the run is held and has nothing to do, or as the governor orders.

        ``piece``: a micro-batch just ended. Gives the seconds it stood still.
        """
        began = time.monotonic()
        self._pacer.after(began - self._worked_at, piece=piece)
        self._read_inbox(began, step)
        self._read_sensors(began, step)
        self._ask_governor(step)
        self._beat(self._state, step, tokens)
        still = self._stand_still(step, tokens)
        self._worked_at = time.monotonic()
        return self._worked_at - began if still else 0.0

    def _stand_still(self, step: int, tokens: int) -> bool:
        """Whether there was anything to wait for."""
        still = False
        while (state := self._still()) and not self.orders.stop:
            still = True
            self._beat(state, step, tokens)
            rest_s = min(WAIT_S, self._pacer.owed_s) if state == "resting" and self._pacer.owed_s else WAIT_S
            time.sleep(rest_s)
            self._pacer.rested(rest_s)
            self._read_inbox(time.monotonic(), step)
            self._read_sensors(time.monotonic(), step)
            self._ask_governor(step)
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
            return "waiting"
        return "resting" if order.kind == "rest" or self._pacer.owed_s > 0.0 else ""

    def _ask_governor(self, step: int) -> None:
        order, news = self._pacer.decide(self._sensors.read(), self.limits)
        if order.kind == "leave" and not self.orders.stop:
            self.orders.stop = order.reason
        if not news:
            return
        self.orders.save = self.orders.save or order.save
        self.telemetry.write("order", step, order=order.kind, duty=round(order.duty, 3), why=order.reason)
        self.pulse.note(wait=order.reason if order.kind != "run" else None, duty=round(order.duty, 3))
        self.display.say(order.reason)

    @contextmanager
    def waiting(self, why: str, *, step: int, tokens: int) -> Iterator[None]:
        """Tells that training stands still and why, and when it goes on."""
        began = time.monotonic()
        self.telemetry.write("order", step, order="wait", why=why)
        try:
            yield
        finally:
            self.telemetry.write("order", step, order="go", waited_s=round(time.monotonic() - began, 3))
            self.pulse.note(wait=None)
            self._beat(self._state, step, tokens, force=True)

    def wait(self, why: str, *, seconds: float, step: int, tokens: int) -> None:
        """Waits, answering letters, until the time is over, the limits change or someone asks to leave."""
        until, limits = time.monotonic() + seconds, self.limits
        self.pulse.note(wait=why, last_error=why)
        self._beat("waiting", step, tokens, force=True)
        while time.monotonic() < until and self.limits is limits and not self.orders.stop:
            self._beat("waiting", step, tokens)
            time.sleep(WAIT_S)
            self._read_inbox(time.monotonic(), step)
            self._read_sensors(time.monotonic(), step)
        self._worked_at = time.monotonic()  # standing still is no work

    def tell_save(self, step: int, saved: Saved | None, fault: OndeviceError | None, warnings: list[str]) -> None:
        """Tells of a save that ended, at ``step`` of the training."""
        if saved is None:
            self.trouble(step, str(fault))
        else:
            fields = {key: value for key, value in vars(saved).items() if key != "step"}
            self.telemetry.write("checkpoint", saved.step, **fields)
            self.pulse.note(saved_step=saved.step, last_error=None)
        for text in warnings:
            self.trouble(step, text)

    def trouble(self, step: int, text: str, **more: Any) -> None:
        """Tells of something that went wrong and did not end the run; ``more`` goes into the record."""
        self.telemetry.write("note", step, text=text, **more)
        self.pulse.note(last_error=text)
        self.display.say(text)

    def last_word(self, outcome: str, *, step: int, tokens: int) -> None:
        """The status that stays when the process is gone."""
        try:
            self.telemetry.sync()
        except OndeviceError as error:
            self.display.say(str(error))
        self.pulse.beat(state=outcome, step=step, tokens=tokens, hold=self.orders.hold, force=True)

    @property
    def _state(self) -> str:
        """A held run that does what it was asked is still a held one."""
        return "waiting" if self.orders.hold and not self.orders.stop else "running"

    def _must_wait(self) -> bool:
        return bool(self.orders.hold) and not self.orders.stop and not self.orders.asked

    def _beat(self, state: str, step: int, tokens: int, *, force: bool = False) -> None:
        status = self.pulse.beat(state=state, step=step, tokens=tokens, hold=self.orders.hold, force=force)
        if status is not None:
            self.display.status(status)

    def _read_inbox(self, now: float, step: int) -> None:
        if self._signals.received and not self.orders.stop:
            self.orders.stop = f"asked by {self._signals.received}"
        if now - self._inbox_at < INBOX_EVERY_S:
            return
        self._inbox_at = now
        for letter in control.pending(self._run):
            limits, answer = obey(letter, self.orders, self.limits, self._store)
            if limits != self.limits:
                self._change_limits(limits, step)
            self.telemetry.write("control", step, **answer)
            control.discard(self._run, letter)

    def _change_limits(self, limits: Limits, step: int) -> None:
        self.limits = limits
        try:
            write_limits(self._run.limits, limits)
        except OndeviceError as error:
            self.trouble(step, f"The new limits hold until this launch ends: {error}", lost="limits")

    def _read_sensors(self, now: float, step: int) -> None:
        if now - self._reading_at < READING_EVERY_S and self._reading_at:
            return
        self._reading_at = now
        reading = {key: value for key, value in self._sensors.read().to_json().items() if key != "t"}
        self.telemetry.write("reading", step, **reading)
        self.pulse.note(**reading)
        rss_mb, limit_mb = reading.get("rss_mb"), self.limits.max_rss_mb
        if rss_mb and limit_mb and rss_mb > limit_mb and not self.orders.stop:
            self.orders.stop = f"memory {rss_mb:,.0f} MB passed limits.max_rss_mb {limit_mb:,.0f}"
