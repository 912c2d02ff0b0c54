"""What the status says of the future: when the run will be done, how long the battery lasts, what a token costs.

Keeps the run's `Usage` while it goes on and asks ``ondevice.governor.forecast``. Others read the answer in the status
file: they cannot know the limits that hold now.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ondevice.governor.forecast import Battery, energy, expect
from ondevice.governor.presets import resolve
from ondevice.run.schema import Limits
from ondevice.run.usage import Usage

__all__ = ["Outlook"]


class Outlook:
    """The forecast of one launch; ``usage`` goes on where the launch before left it. ``limits``: those that hold."""

    def __init__(self, usage: Usage, *, handheld: bool) -> None:
        self.usage = usage
        self.limits = Limits()
        self._handheld = handheld
        self._battery = Battery()

    def feel(self, t: float, reading: dict[str, Any]) -> None:
        """The sensors were read at ``t``, by the clock that the usage is counted with."""
        self.usage.reading(t, reading)
        self._battery = Battery(percent=reading.get("battery_percent"), plugged=reading.get("plugged"))

    def told(self, *, tokens_left: float, now: float) -> dict[str, Any]:
        """Fields of the status; ``now`` and ``done_t`` are unix seconds. Before the first step only the usage
        and the policy: the limits that hold, those of the preset included."""
        policy = resolve(self.limits, handheld=self._handheld)
        sums: dict[str, Any] = {"usage": self.usage.to_json(), "policy": dataclasses.asdict(policy)}
        found = expect(self.usage, policy, self._battery, tokens_left=tokens_left, now=now)
        if found is None:
            return sums
        return {
            **sums,
            "tok_s_sustained": found.sustained_tok_s,
            "eta_s": found.eta_s(now),
            "done_t": found.done_t,
            "open_s": found.open_s,
            "battery_s": found.battery_s,
            "mean_power_w": self.usage.power_w,
            **dataclasses.asdict(
                energy(self.usage.wh_per_mtok, tokens_left=tokens_left, price_per_kwh=self.limits.price_per_kwh)
            ),
        }
