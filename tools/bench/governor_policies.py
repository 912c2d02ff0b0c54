"""What decides in the bench of governors: plain rules to compare with, and the product's governor.

A policy sees readings, the clock and how long its last micro-batch took; it sees no truth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ondevice.device.readings import Reading
from ondevice.governor.decide import decide
from ondevice.governor.history import begin, observe
from ondevice.governor.order import Order
from ondevice.run.schema import Limits

__all__ = ["POLICIES", "Answer", "Boinc", "Caps", "Duty", "Policy", "SimplePi", "make_policy"]


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Limits of the battery in degrees Celsius; the true temperature counts, whatever can be read."""

    battery_c: float = 40.0
    hard_battery_c: float = 42.0


Answer = float | Order  # seconds of rest, or an order


class Policy(Protocol):
    """Asked before each micro-batch and, where it gives orders, at least every few seconds of a rest."""

    def step(self, reading: Reading, now: float, worked_s: float) -> Answer:
        """``now``: unix seconds; ``worked_s``: what the micro-batch before took, 0 at the start and while resting."""


class Duty:
    """Always the same share of the time; 1.0 is always on."""

    def __init__(self, duty: float) -> None:
        self._duty = duty

    def step(self, reading: Reading, now: float, worked_s: float) -> Answer:
        return worked_s * (1 - self._duty) / self._duty


class Boinc:
    """On at or below the limit, off for 300 s above it."""

    def __init__(self, limit_c: float) -> None:
        self._limit_c = limit_c

    def step(self, reading: Reading, now: float, worked_s: float) -> Answer:
        return 300.0 if reading.battery_c is not None and reading.battery_c > self._limit_c else 0.0


class SimplePi:
    """A textbook PI controller on the battery, half duty where it cannot be read; a floor for any governor."""

    def __init__(self, caps: Caps) -> None:
        self._target_c = caps.battery_c - 1.0
        self._integral, self._last = 0.4, 0.0

    def step(self, reading: Reading, now: float, worked_s: float) -> Answer:
        if reading.battery_c is None:
            return worked_s
        error_c, dt_s = self._target_c - reading.battery_c, min(60.0, now - (self._last or now))
        self._last = now
        self._integral = min(1.0, max(0.0, self._integral + 0.0003 * error_c * dt_s))
        duty = min(1.0, max(0.02, self._integral + 0.12 * error_c))
        return min(600.0, worked_s * (1 - duty) / duty)


class Governed:
    """The product's governor, with only the battery's limit in its way. Advice on threads is not taken: the oracle
    could not either."""

    def __init__(self, caps: Caps, threads: int, piece_s: float) -> None:
        self.history = begin(handheld=True, battery=True, threads=threads, piece_s=piece_s)
        self._limits = Limits(
            preset="balanced",
            max_battery_c=caps.battery_c,
            max_skin_c=70.0,
            max_cpu_c=110.0,
            battery_floor_percent=5.0,
            charge_target_percent=5.0,
        )

    def step(self, reading: Reading, now: float, worked_s: float) -> Answer:
        if worked_s > 0:
            self.history = observe(self.history, worked_s, now)
        order, self.history = decide(reading, self._limits, self.history, now)
        return order


POLICIES = ("always-on", "half", "boinc", "boinc-kept", "simple-pi", "governor")


def make_policy(name: str, caps: Caps, threads: int, piece_s: float) -> Policy:
    """A fresh one of that name; ``threads`` is what the phone trains with, ``piece_s`` what a micro-batch takes."""
    if name == "governor":
        return Governed(caps, threads, piece_s)
    made: dict[str, Policy] = {
        "always-on": Duty(1.0),
        "half": Duty(0.5),
        "boinc": Boinc(caps.battery_c),
        "simple-pi": SimplePi(caps),
    }
    return made[name]
