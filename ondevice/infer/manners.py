"""Rests between tokens, as the governor orders: a model that writes for hours must not overheat the phone it writes on.

Writers call `began` where a piece of work begins and `pause` after each token. Knows limits and the device; no model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Lock

from ondevice.device.battery import NO_BATTERY
from ondevice.device.readings import Sensors
from ondevice.device.world import Machine, World
from ondevice.governor.debt import Debt
from ondevice.governor.decide import decide
from ondevice.governor.history import begin, worked
from ondevice.governor.order import Order
from ondevice.run.schema import Limits

__all__ = ["Manners", "on_this_machine"]

_PIECE_S = 0.25  # of work between two questions


class Manners:
    """The pace of one writer at a time. ``order`` is the last order that the governor gave.

    >>> manners = on_this_machine(Limits(), folder)
    >>> manners.began()
    >>> generate_batch(backend, prompts, ..., pause=manners.pause)
    """

    def __init__(
        self,
        world: World,
        limits: Limits,
        *,
        attended: bool = False,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """``attended``: somebody waits for a short text, so only what forbids work altogether makes it rest.
        ``tell`` gets a sentence when work has to wait, and when it goes on."""
        battery = world.handheld or world.read().unknown.get("battery_percent") != NO_BATTERY
        self._world, self._limits, self._attended = world, limits, attended
        self._history = begin(handheld=world.handheld, battery=battery)
        self._debt, self._tell = Debt(), tell
        self._since_s = world.monotonic()
        self._lock = Lock()
        self.order = Order()

    def look(self) -> Order:
        """The order for now."""
        with self._lock:
            before = self.order
            self.order, self._history = decide(self._world.read(), self._limits, self._history, self._world.now())
        if self.order.kind != before.kind:
            self._tell(self.order.reason)
        return self.order

    def began(self) -> None:
        """Work begins now; the time before was rest."""
        self._since_s = self._world.monotonic()

    def pause(self, look: Callable[[], None] = lambda: None) -> None:
        """Rests as long as is owed for the work since the last call, or until work is allowed again. ``look`` is
        called while it rests; what it raises ends the rest."""
        work_s = self._world.monotonic() - self._since_s
        if work_s < _PIECE_S:
            return
        self._history = worked(self._history, work_s, self._world.now())
        self._debt = self._debt.after(work_s)
        while True:
            self._debt = self._debt.under(self.look())
            left_s = self._debt.due_s if self.order.kind == "run" else self._world.look_s
            if self._attended and self.order.kind == "run":
                left_s = 0.0
            if left_s <= 0.0:
                break
            look()
            began_s = self._world.monotonic()
            self._world.sleep(min(left_s, self._world.look_s))
            if self.order.kind == "run":
                self._debt = self._debt.rested(self._world.monotonic() - began_s)
        self.began()


def on_this_machine(
    limits: Limits, folder: Path, *, attended: bool = False, tell: Callable[[str], None] = lambda text: None
) -> Manners:
    """Manners of the real device; ``folder`` is where the disk is looked at."""
    return Manners(Machine(Sensors(folder)), limits, attended=attended, tell=tell)
