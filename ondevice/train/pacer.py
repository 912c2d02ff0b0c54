"""Carries out what the governor orders: how long to rest after a piece of work, and when not to work at all.

The desk tells it of each piece and asks for the order; it keeps the governor's memory, which is plain data. A rest owed
is carried on to the next safe point, so that a short piece owes exactly its share in the long run.
"""

from __future__ import annotations

import os

from ondevice.device.battery import NO_BATTERY
from ondevice.device.host import is_relaunched
from ondevice.device.world import World
from ondevice.governor.debt import Debt
from ondevice.governor.decide import decide
from ondevice.governor.history import History, begin, observe, refitted, worked
from ondevice.governor.order import Order, is_change
from ondevice.governor.recall import owed
from ondevice.governor.threads import Wish, wanted
from ondevice.run.schema import Limits

__all__ = ["Pacer"]


class Pacer:
    """The pace of one launch. ``order`` is the last one."""

    def __init__(
        self,
        world: World,
        *,
        threads: int,
        full_threads: int | None = None,
        micro_batch: int | None = None,
        piece_s: float = 0.0,
    ) -> None:
        """``world`` tells whether there is a battery; where that is unknown one is assumed. ``full_threads``: what
        the threads were before heat took some; ``piece_s``: what a micro-batch took when the run last lived."""
        handheld, self._world, self._threads = world.handheld, world, threads
        battery = world.read().unknown.get("battery_percent") != NO_BATTERY
        self._history = begin(
            handheld=handheld,
            battery=battery or handheld,
            relaunched=is_relaunched(os.environ) and world.simulated is None,
            threads=threads,
            full_threads=full_threads,
            micro_batch=micro_batch,
            piece_s=piece_s,
        )
        self.order: Order | None = None
        self._debt = Debt()
        self._unpaid_s = 0.0  # work that no rest is reckoned for yet
        self._busy_s = world.processor()  # when the work in progress began

    @property
    def history(self) -> History:
        """What is remembered so far."""
        return self._history

    def take_up(self, history: History) -> None:
        """Begins with what an earlier launch knew, and with the rest that it owed."""
        self._history, self._debt = history, owed(history, self._world.now())

    def before(self) -> None:
        """Work begins now; processor time until here went into looking around."""
        self._busy_s = self._world.processor()

    def after(self, work_s: float, *, piece: bool) -> None:
        """``work_s`` seconds of work just ended; ``piece``: a micro-batch, whose length is comparable to others'."""
        work_s = self._world.worked(work_s, piece=piece, threads=self._threads)
        now = self._world.now()
        if piece:
            self._history = observe(self._history, work_s, now, self._world.processor() - self._busy_s)
        else:
            self._history = worked(self._history, work_s, now)
        self._unpaid_s += work_s

    def decide(self, limits: Limits) -> tuple[Order, bool]:
        """The order for now, and whether it is news."""
        order, self._history = decide(self._world.read(), limits, self._history, self._world.now())
        news = is_change(self.order, order)
        if news and self.order is None and order.kind == "run" and order.duty == 1.0 and not order.save:
            news = False  # a launch that simply works is no news
        self.order = order
        self._reckon(order)
        return order, news

    def _reckon(self, order: Order) -> None:
        """The rest for the work just done, at the duty that was just decided."""
        work_s, self._unpaid_s = self._unpaid_s, 0.0
        debt = self._debt.after(work_s) if work_s > 0.0 else self._debt
        self._debt = debt.under(order)

    @property
    def owed_s(self) -> float:
        """The rest to take now for the work done; what is carried on to the next piece, where none is due."""
        return self._debt.due_s

    @property
    def empty(self) -> bool:
        """Whether the battery fell below its floor and is not charged enough yet."""
        return self._history.power.waiting

    def rested(self, rest_s: float) -> None:
        """So much was rested; a little more than was owed counts for the next time."""
        if self.owed_s > 0.0:
            self._debt = self._debt.rested(rest_s)

    def wish(self) -> Wish | None:
        """The change of the fit that is due by now."""
        return wanted(self._history.binding, memory_low=self._history.memory_low)

    @property
    def full_threads(self) -> int | None:
        """What the threads were before some were taken; None where all are there."""
        return self._history.binding.full

    def refitted(self, wish: Wish, *, threads: int, micro_batch: int | None = None) -> None:
        """A wish was carried out, or changes nothing; ``threads`` and ``micro_batch`` are those of the fit now."""
        self._threads = threads
        self._history = refitted(self._history, wish, threads=threads, micro_batch=micro_batch)
