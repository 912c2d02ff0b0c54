"""Carries out what the governor orders: how long to rest after a piece of work, and when not to work at all.

The desk tells it of each piece and asks for the order; it keeps the governor's memory, which is plain data. A rest owed
is carried on to the next safe point, so that a short piece owes exactly its share in the long run.
"""

from __future__ import annotations

import os
import time

from ondevice.device.battery import NO_BATTERY
from ondevice.device.host import find_termux, platform_name
from ondevice.device.readings import Reading
from ondevice.governor.decide import decide
from ondevice.governor.history import begin, observe, worked
from ondevice.governor.order import Order, is_change
from ondevice.run.schema import Limits

__all__ = ["Pacer"]

LONGEST_DEBT_S = 450.0  # more is forgiven: a device that rested that long is cool


class Pacer:
    """The pace of one launch. ``order`` is the last one; ``owed_s`` the rest still to take for the work done."""

    def __init__(self, reading: Reading, *, threads: int) -> None:
        """``reading`` tells whether there is a battery; where that is unknown one is assumed."""
        handheld = platform_name() == "android" or find_termux(os.environ) is not None
        battery = reading.unknown.get("battery_percent") != NO_BATTERY
        self._history = begin(handheld=handheld, battery=battery or handheld, threads=threads)
        self.order: Order | None = None
        self.owed_s = 0.0
        self._unpaid_s = 0.0  # work that no rest is reckoned for yet

    def after(self, work_s: float, *, piece: bool) -> None:
        """``work_s`` seconds of work just ended; ``piece``: a micro-batch, whose length is comparable to others'."""
        tell = observe if piece else worked
        self._history = tell(self._history, work_s, time.time())
        self._unpaid_s += work_s

    def decide(self, reading: Reading, limits: Limits) -> tuple[Order, bool]:
        """The order for now, and whether it is news."""
        order, self._history = decide(reading, limits, self._history, time.time())
        news = is_change(self.order, order)
        if news and self.order is None and order.kind == "run" and order.duty == 1.0 and not order.save:
            news = False  # a launch that simply works is no news
        self.order = order
        self._reckon(order)
        return order, news

    def _reckon(self, order: Order) -> None:
        """The rest for the work just done, at the duty that was just decided."""
        work_s, self._unpaid_s = self._unpaid_s, 0.0
        if order.kind != "run" or order.duty >= 1.0 or order.duty <= 0.0:
            self.owed_s = 0.0
        else:
            self.owed_s = min(LONGEST_DEBT_S, self.owed_s + work_s * (1.0 - order.duty) / order.duty)

    def rested(self, rest_s: float) -> None:
        """So much of what is owed was rested."""
        self.owed_s = max(0.0, self.owed_s - rest_s)
