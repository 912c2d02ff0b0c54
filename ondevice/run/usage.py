"""How a run spends its time and its energy: work, rests and waits, watts and the battery, folded as they happen.

One fold for everybody: the trainer feeds it at its safe points, readers of a story feed it records (`Usage.fold`).
Waits (for hours, the charger or a person) are counted apart: they say nothing about the pace while work is allowed.
Knows no limits and foretells nothing; `ondevice.governor.forecast` does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from ondevice.run.telemetry import as_number

__all__ = ["Usage", "rates"]

RECENT_S = 3600.0  # what happened so long ago counts a third
LONGEST_S = 86_400.0  # between two signs: more is a clock that was set
POWERED_S = 120.0  # between two readings of the power that belong together
NOTICEABLE_PERCENT = 2.0  # charges come in whole percents; less says nothing of a rate
_WAITS = ("wait", "leave")


class _Felt(NamedTuple):
    """The battery at a reading, and what had been done by then."""

    t: float
    discharge_w: float | None
    percent: float | None
    plugged: bool | None
    tokens: float
    open_s: float


@dataclass
class Usage:
    """Seconds, tokens, watt-hours and percent so far. ``open_s``: allowed to work, rests included; ``recent_*`` fade.

    ``energy_*`` covers only the time in which the battery's discharge could be read.
    """

    open_s: float = 0.0
    worked_s: float = 0.0
    waited_s: float = 0.0
    tokens: float = 0.0
    recent_open_s: float = 0.0
    recent_worked_s: float = 0.0
    recent_tokens: float = 0.0
    energy_wh: float = 0.0
    energy_s: float = 0.0
    energy_tokens: float = 0.0
    drained_percent: float = 0.0  # while it worked, since the plug last changed
    drain_s: float = 0.0
    charged_percent: float = 0.0  # while it waited on the charger
    charge_s: float = 0.0
    _t: float | None = field(default=None, init=False)
    _waiting: bool = field(default=False, init=False)
    _held: bool = field(default=False, init=False)
    _felt: _Felt | None = field(default=None, init=False)

    @property
    def duty(self) -> float | None:
        """Share of the open time spent in steps, lately; None before the first step."""
        seen = self.recent_worked_s > 0 and self.recent_open_s > 0
        return min(1.0, self.recent_worked_s / self.recent_open_s) if seen else None

    @property
    def burst_tok_s(self) -> float | None:
        """Tokens a second of work, lately."""
        return self.recent_tokens / self.recent_worked_s if self.recent_worked_s else None

    @property
    def sustained_tok_s(self) -> float | None:
        """Tokens a second of open time, lately: rests, evaluations and saves included."""
        duty, burst = self.duty, self.burst_tok_s
        return None if duty is None or burst is None else duty * burst

    @property
    def power_w(self) -> float | None:
        """Mean power from the battery over work and rests; None where it could not be read (on the mains)."""
        return self.energy_wh * 3600.0 / self.energy_s if self.energy_s else None

    @property
    def wh_per_mtok(self) -> float | None:
        """Watt-hours a million tokens took."""
        return self.energy_wh * 1e6 / self.energy_tokens if self.energy_tokens else None

    @property
    def used_per_hour(self) -> float | None:
        """Percent of the battery that an hour of open time takes; 0 where it rises or holds; None: not known yet."""
        return _hourly(self.drained_percent, self.drain_s)

    @property
    def charged_per_hour(self) -> float | None:
        """Percent that an hour of waiting on the charger gives; None: not seen yet."""
        return _hourly(self.charged_percent, self.charge_s)

    def begin(self, t: float) -> None:
        """A launch begins at ``t`` (seconds of any clock that this launch keeps to)."""
        self._t, self._waiting, self._held, self._felt = t, False, False, None

    def at(self, t: float, *, waiting: bool) -> None:
        """It is ``t`` now; from here on the run waits or does not."""
        self._pass(t)
        self._waiting = waiting

    def step(self, t: float, *, step_s: float, tokens: float) -> None:
        """A step of ``step_s`` seconds of work ended at ``t``."""
        self._pass(t)
        self.worked_s += step_s
        self.recent_worked_s += step_s
        self.tokens += tokens
        self.recent_tokens += tokens

    def reading(self, t: float, values: dict[str, Any]) -> None:
        """The battery as read at ``t``: ``power_w``, ``battery_percent``, ``plugged``; None for what is unknown."""
        self._pass(t)
        watts, percent = as_number(values.get("power_w")), as_number(values.get("battery_percent"))
        plugged = values.get("plugged") if isinstance(values.get("plugged"), bool) else None
        discharge_w = watts if watts is not None and watts > 0 and not plugged else None
        before, now = self._felt, _Felt(t, discharge_w, percent, plugged, self.tokens, self.open_s)
        self._felt = now
        if before is not None and 0 < t - before.t <= LONGEST_S:
            self._add_energy(before, now)
            self._add_charge(before, now)

    def _add_energy(self, before: _Felt, now: _Felt) -> None:
        passed_s = now.t - before.t
        if before.discharge_w is None or now.discharge_w is None or passed_s > POWERED_S or not _worked(before, now):
            return
        self.energy_wh += (before.discharge_w + now.discharge_w) / 2 * passed_s / 3600.0
        self.energy_s += passed_s
        self.energy_tokens += now.tokens - before.tokens

    def _add_charge(self, before: _Felt, now: _Felt) -> None:
        if now.plugged != before.plugged:
            self.drained_percent = self.drain_s = 0.0
        elif before.percent is None or now.percent is None:
            return
        elif _worked(before, now):
            self.drained_percent += before.percent - now.percent
            self.drain_s += now.t - before.t
        elif now.plugged:
            self.charged_percent += now.percent - before.percent
            self.charge_s += now.t - before.t

    def _pass(self, t: float) -> None:
        """Time until ``t`` went by in the state that was."""
        before, self._t = self._t, t
        if before is None or not 0.0 < t - before <= LONGEST_S:
            return
        if self._waiting or self._held:
            self.waited_s += t - before
            return
        fading = math.exp(-(t - before) / RECENT_S)
        self.open_s += t - before
        self.recent_open_s = self.recent_open_s * fading + t - before
        self.recent_worked_s *= fading
        self.recent_tokens *= fading

    def fold(self, record: dict[str, Any]) -> None:
        """Takes a record of the story into account; odd ones are ignored."""
        t, kind = as_number(record.get("sim_t", record.get("t"))), record.get("kind")
        if t is None:
            return
        if kind == "launch":
            self.begin(t)
        elif kind == "step":
            step_s, tok_s = as_number(record.get("step_s")), as_number(record.get("tok_s"))
            if step_s is not None and tok_s is not None and 0 < step_s <= LONGEST_S and 0 < tok_s < 1e12:
                self.step(t, step_s=step_s, tokens=step_s * tok_s)
        elif kind == "reading":
            self.reading(t, record)
        elif kind == "order":
            self.at(t, waiting=record.get("order") in _WAITS)
        elif kind == "control" and record.get("ok") is True and record.get("verb") in ("pause", "resume"):
            self._pass(t)
            self._held = record["verb"] == "pause"
        elif kind == "end":
            self._pass(t)
            self._t = None

    def to_json(self) -> dict[str, float]:
        """The sums, for a status that the next launch goes on from."""
        return {name: round(getattr(self, name), 6) for name in _SUMS}

    @classmethod
    def from_json(cls, raw: Any) -> Usage:
        """The same back; what is missing or no number counts as nothing."""
        found = {name: as_number(raw.get(name)) for name in _SUMS} if isinstance(raw, dict) else {}
        return cls(**{name: value for name, value in found.items() if value is not None and 0 <= value < 1e15})


_SUMS = tuple(item.name for item in fields(Usage) if item.init)


def rates(status: Mapping[str, Any], usage: Usage) -> tuple[float | None, float | None]:
    """Tokens a second inside steps, and with rests: as the trainer showed them last; untold, what the usage counts."""
    burst, sustained = as_number(status.get("tok_s")), as_number(status.get("tok_s_sustained"))
    return (
        usage.burst_tok_s if burst is None else burst,
        usage.sustained_tok_s if sustained is None else sustained,
    )


def _worked(before: _Felt, now: _Felt) -> bool:
    return now.open_s > before.open_s


def _hourly(percent: float, seconds: float) -> float | None:
    if not seconds or (abs(percent) < NOTICEABLE_PERCENT and seconds < 3600.0):
        return None
    return max(0.0, percent * 3600.0 / seconds)
