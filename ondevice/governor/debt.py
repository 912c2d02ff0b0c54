"""The rest that is owed for work: a duty carried out piece by piece, the same in every loop that obeys orders.

Each new order reckons the rest for the last piece anew, so that what is learned while resting counts at once; what was
rested too little or too much is carried on to the next piece. Plain data, no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ondevice.governor.order import Order

__all__ = ["LONGEST_CREDIT_S", "LONGEST_DEBT_S", "Debt"]

LONGEST_DEBT_S = 450.0  # more is forgiven: a device that rested that long is cool
LONGEST_CREDIT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Debt:
    """``owed_s``: seconds still to rest. ``carried_s`` of them are from before the ``work_s`` of the last piece."""

    owed_s: float = 0.0
    carried_s: float = 0.0
    work_s: float = 0.0
    rested_s: float = 0.0
    least_s: float = 0.0  # of one rest
    ordered: bool = False  # an order has said what that work costs

    @property
    def due_s(self) -> float:
        """Seconds to rest before the next piece: a short debt waits until it is worth a rest."""
        return self.owed_s if self.rested_s > 0.0 or self.owed_s >= self.least_s else 0.0

    def after(self, work_s: float) -> Debt:
        """So much more work was done; an order says what it costs."""
        if not self.ordered:  # nobody asked between two pieces
            return replace(self, work_s=self.work_s + work_s)
        # What an order has priced stays at that price: a hotter hour must not charge for the cool one before it.
        return Debt(owed_s=self.owed_s, carried_s=self.owed_s, work_s=work_s, least_s=self.least_s)

    def under(self, order: Order) -> Debt:
        """As the order has it."""
        if order.kind != "run" or not 0.0 < order.duty < 1.0:
            return Debt()
        if order.left_s is not None:
            owed_s = order.left_s
        else:
            whole_s = self.carried_s + self.work_s * (1.0 - order.duty) / order.duty
            owed_s = max(-LONGEST_CREDIT_S, min(LONGEST_DEBT_S, whole_s) - self.rested_s)
        return replace(self, owed_s=owed_s, least_s=order.rest_s, ordered=True)

    def rested(self, rest_s: float) -> Debt:
        """So many seconds passed without work; a little more than was due counts for the next time."""
        owed_s = max(-LONGEST_CREDIT_S, self.owed_s - rest_s)
        return replace(self, rested_s=self.rested_s + rest_s, owed_s=owed_s)
