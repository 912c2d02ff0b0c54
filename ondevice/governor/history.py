"""What the governor remembers between two orders: plain data that goes into a checkpoint or a status file and back.

`begin` says what the device is, `observe` tells of a step, `worked` of other work. Folding readings into it is the
business of `ondevice.governor.decide`.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field, replace
from typing import Any

import cattrs

from ondevice.governor.course import Course
from ondevice.governor.heat import Heat, without_course
from ondevice.governor.order import Order
from ondevice.governor.pace import Pace, after_step
from ondevice.governor.power import Power
from ondevice.governor.rescale import rescaled_heat, rescaled_work
from ondevice.governor.steady import Steady
from ondevice.governor.threads import Binding, Wish, changed
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
    steady: Steady = field(default_factory=Steady)

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return dataclasses.asdict(replace(self, heat=without_course(self.heat)))

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> History:
        """The same back; a fresh one where the dictionary is of another make."""
        try:
            return _converter().structure(value, cls)
        except (cattrs.BaseValidationError, TypeError, ValueError, AttributeError):
            return cls()


@functools.cache
def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(Course, lambda value, _: value)
    return converter


def begin(
    *,
    handheld: bool,
    battery: bool,
    relaunched: bool = False,
    threads: int | None = None,
    full_threads: int | None = None,
    micro_batch: int | None = None,
    piece_s: float = 0.0,
) -> History:
    """The history of a launch on such a device. ``full_threads``: what the threads were before heat took some;
    ``piece_s``: what a micro-batch is expected to take, 0 where nobody knows."""
    binding, work = Binding(threads=threads, full=full_threads, micro_batch=micro_batch), Work(piece_s=piece_s)
    return History(handheld=handheld, battery=battery, relaunched=relaunched, binding=binding, work=work)


def observe(history: History, step_s: float, now: float, cpu_s: float | None = None) -> History:
    """A micro-batch of the usual size took ``step_s`` seconds, ``cpu_s`` of processor time over all threads where that
    is known, and ended at ``now`` (unix seconds)."""
    return replace(history, work=after_piece(history.work, step_s, now), pace=after_step(history.pace, step_s, cpu_s))


def worked(history: History, seconds: float, now: float) -> History:
    """Other work, such as an evaluation or a save, took ``seconds`` and ended at ``now``."""
    work = after_piece(history.work, seconds, now)
    return replace(history, work=replace(work, piece_s=history.work.piece_s))


def refitted(history: History, wish: Wish, *, threads: int, micro_batch: int | None = None) -> History:
    """A wish for another fit was carried out, or found to change nothing; ``threads`` are those of the fit now. Step
    times before and after a change cannot be compared."""
    before, binding = history.binding, changed(history.binding, wish, threads=threads)
    binding = replace(binding, micro_batch=micro_batch or binding.micro_batch)
    if wish.kind == "retune" and threads == before.threads:
        return replace(history, binding=binding)
    history = replace(history, pace=Pace(), binding=binding, steady=Steady(), decided_t=None)
    if before.threads is None or threads == before.threads:
        return history
    factor = threads / before.threads
    return replace(history, heat=rescaled_heat(history.heat, factor), work=rescaled_work(history.work, factor))
