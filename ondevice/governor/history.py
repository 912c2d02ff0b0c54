"""What the governor remembers between two orders: plain data that goes into a checkpoint or a status file and back.

`begin` says what the device is, `observe` tells of a step, `worked` of other work. Folding readings into it is the
business of `ondevice.governor.decide`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field, replace
from typing import Any

import cattrs

from ondevice.governor.heat import Heat
from ondevice.governor.order import Order
from ondevice.governor.pace import Pace, after_step
from ondevice.governor.power import Power
from ondevice.governor.threads import Binding
from ondevice.governor.work import Work, after_piece

__all__ = ["History", "begin", "observe", "refitted", "worked"]


@dataclass(frozen=True, kw_only=True)
class History:
    """``handheld``: a phone or tablet. ``battery``: it has one, readable or not; unknown devices are taken for phones.

    ``relaunched``: something starts the run again later, so a long wait may be spent outside.
    """

    handheld: bool = True
    battery: bool = True
    relaunched: bool = False
    order: Order | None = None
    decided_t: float | None = None
    since_t: float | None = None  # when the kind of order began
    screen_t: float | None = None  # when the screen was last seen on
    memory_low: bool = False
    work: Work = field(default_factory=Work)
    heat: Heat = field(default_factory=Heat)
    pace: Pace = field(default_factory=Pace)
    power: Power = field(default_factory=Power)
    binding: Binding = field(default_factory=Binding)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> History:
        """The same back; a fresh one where the dictionary is of another make."""
        try:
            return cattrs.Converter(forbid_extra_keys=True).structure(value, cls)
        except (cattrs.BaseValidationError, TypeError, ValueError, AttributeError):
            return cls()


def begin(*, handheld: bool, battery: bool, relaunched: bool = False, threads: int | None = None) -> History:
    """The history of a launch on such a device."""
    return History(handheld=handheld, battery=battery, relaunched=relaunched, binding=Binding(threads=threads))


def observe(history: History, step_s: float, now: float) -> History:
    """A micro-batch of the usual size took ``step_s`` seconds and ended at ``now`` (unix seconds)."""
    return replace(history, work=after_piece(history.work, step_s, now), pace=after_step(history.pace, step_s))


def worked(history: History, seconds: float, now: float) -> History:
    """Other work, such as an evaluation or a save, took ``seconds`` and ended at ``now``."""
    work = after_piece(history.work, seconds, now)
    return replace(history, work=replace(work, piece_s=history.work.piece_s))


def refitted(history: History, *, threads: int) -> History:
    """The fit changed: step times before and after cannot be compared."""
    return replace(history, pace=Pace(), binding=Binding(threads=threads))
