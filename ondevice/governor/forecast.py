"""When a run will be done, and what it costs: rests, hours and pauses for the charger included.

Rates come from what was seen so far; what nobody knows stays None. Pure arithmetic on the same windows and limits that
`ondevice.governor.decide` obeys.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import tzinfo

from ondevice.governor.hours import Window, next_close, next_open

__all__ = ["Charge", "Energy", "Forecast", "charge_share", "energy", "forecast"]

FURTHEST_S = 3650 * 86_400.0
J_PER_WH = 3600.0


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """``sustained_tok_s`` counts rests and pauses for the charger, not closed hours; ``done_t`` counts those too."""

    burst_tok_s: float
    sustained_tok_s: float
    done_t: float | None
    closed_s: float

    def eta_s(self, now: float) -> float | None:
        """Seconds from now; None where it will never be done at this rate."""
        return None if self.done_t is None else max(0.0, self.done_t - now)


def forecast(
    tokens_left: float,
    *,
    burst_tok_s: float,
    duty: float,
    now: float,
    working_share: float = 1.0,
    windows: tuple[Window, ...] = (),
    zone: tzinfo | None = None,
) -> Forecast:
    """``duty``: sustained share of the time worked, of the time not spent on the charger (`charge_share`)."""
    sustained = burst_tok_s * duty * working_share
    if tokens_left <= 0:
        return Forecast(burst_tok_s=burst_tok_s, sustained_tok_s=sustained, done_t=now, closed_s=0.0)
    if sustained <= 0:
        return Forecast(burst_tok_s=burst_tok_s, sustained_tok_s=0.0, done_t=None, closed_s=0.0)
    needed_s = tokens_left / sustained
    done_t = _end(now, needed_s, windows, zone)
    closed_s = 0.0 if done_t is None else done_t - now - needed_s
    return Forecast(
        burst_tok_s=burst_tok_s, sustained_tok_s=sustained, done_t=done_t, closed_s=max(0.0, round(closed_s, 6))
    )


def _end(now: float, needed_s: float, windows: tuple[Window, ...], zone: tzinfo | None) -> float | None:
    """When so many open seconds will have passed."""
    if not windows:
        return now + needed_s if needed_s < FURTHEST_S else None
    t, left_s = now, needed_s
    while t - now < FURTHEST_S:
        opens = next_open(windows, t, zone)
        closes = next_close(windows, opens, zone)
        if closes is None or closes - opens >= left_s:
            return opens + left_s
        left_s -= closes - opens
        t = closes
    return None


@dataclass(frozen=True, kw_only=True)
class Charge:
    """Percent of the battery an hour of work takes and an hour of waiting on the charger gives, and the two marks."""

    used_per_hour: float
    charged_per_hour: float
    floor_percent: float
    target_percent: float


def charge_share(charge: Charge | None) -> float:
    """Share of the time that is worked where work drains the battery; 1.0 where it does not or nothing is known."""
    if charge is None or charge.used_per_hour <= 0:
        return 1.0
    if charge.charged_per_hour <= 0 or charge.target_percent <= charge.floor_percent:
        return 0.0
    return charge.charged_per_hour / (charge.charged_per_hour + charge.used_per_hour)


@dataclass(frozen=True, kw_only=True)
class Energy:
    """Watt-hours for a million tokens, and money where there is a price; None where the power cannot be read."""

    wh_per_mtok: float | None
    price_per_mtok: float | None
    wh_left: float | None
    price_left: float | None


def energy(
    *, power_w: float | None, tok_s: float, tokens_left: float, idle_w: float = 0.0, price_per_kwh: float | None = None
) -> Energy:
    """``power_w``: mean power drawn over rests and work; ``tok_s``: the sustained rate at that power."""
    if power_w is None or power_w <= idle_w or tok_s <= 0:
        return Energy(wh_per_mtok=None, price_per_mtok=None, wh_left=None, price_left=None)
    wh_per_mtok = (power_w - idle_w) * 1e6 / tok_s / J_PER_WH
    wh_left = wh_per_mtok * tokens_left / 1e6
    per_wh = None if price_per_kwh is None else price_per_kwh / 1000
    return Energy(
        wh_per_mtok=wh_per_mtok,
        price_per_mtok=None if per_wh is None else wh_per_mtok * per_wh,
        wh_left=wh_left,
        price_left=None if per_wh is None else wh_left * per_wh,
    )
