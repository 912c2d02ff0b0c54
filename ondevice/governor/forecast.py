"""When a run will be done, and what it costs: rests, hours and pauses for the charger included.

Rates come from what was seen so far; what nobody knows stays None. Pure arithmetic on the same windows and limits that
`ondevice.governor.decide` obeys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import tzinfo

from ondevice.governor.hours import Window, next_close, next_open, parse_hours
from ondevice.governor.presets import Policy
from ondevice.run.usage import Usage

__all__ = ["Battery", "Charge", "Energy", "Forecast", "charge_share", "energy", "expect", "forecast", "wh_of"]

FURTHEST_S = 3650 * 86_400.0
WEEK_S = 7 * 86_400.0
J_PER_WH = 3600.0


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """``sustained_tok_s`` counts rests and pauses for the charger, not closed hours; ``done_t`` counts those too.

    ``open_s``: time to work and rest until the end, without either. ``battery_s``: time to work and rest until the
    battery is at its floor; None where it never gets there or nobody knows.
    """

    burst_tok_s: float
    sustained_tok_s: float
    done_t: float | None
    closed_s: float
    open_s: float | None = None
    battery_s: float | None = None

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
    """When so many open seconds will have passed. Whole weeks are alike, so that far ends take no time to find."""
    if not windows:
        return now + needed_s if needed_s < FURTHEST_S else None
    weekly_s = sum(closes - opens for opens, closes in _spans(now, now + WEEK_S, windows, zone))
    weeks = max(0.0, needed_s // weekly_s - 1) if weekly_s else 0.0
    if weeks * WEEK_S > FURTHEST_S:
        return None
    start, left_s = now + weeks * WEEK_S, needed_s - weeks * weekly_s
    for opens, closes in _spans(start, start + 4 * WEEK_S, windows, zone):
        if closes - opens >= left_s:
            return opens + left_s
        left_s -= closes - opens
    return None


def _spans(
    start: float, until: float, windows: tuple[Window, ...], zone: tzinfo | None
) -> Iterator[tuple[float, float]]:
    """The open times from ``start`` to ``until``."""
    t = start
    while (opens := next_open(windows, t, zone)) < until:
        closes = next_close(windows, opens, zone)
        t = until if closes is None else min(closes, until)
        yield opens, t


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


def wh_of(power_w: float | None, tok_s: float) -> float | None:
    """Watt-hours a million tokens take at a mean power over rests and work, and the sustained rate at that power."""
    return None if power_w is None or power_w <= 0 or tok_s <= 0 else power_w * 1e6 / tok_s / J_PER_WH


def energy(wh_per_mtok: float | None, *, tokens_left: float, price_per_kwh: float | None = None) -> Energy:
    """What is left to be spent; all None where the power cannot be read."""
    if wh_per_mtok is None:
        return Energy(wh_per_mtok=None, price_per_mtok=None, wh_left=None, price_left=None)
    wh_left = wh_per_mtok * max(0.0, tokens_left) / 1e6
    per_wh = None if price_per_kwh is None else price_per_kwh / 1000
    return Energy(
        wh_per_mtok=wh_per_mtok,
        price_per_mtok=None if per_wh is None else wh_per_mtok * per_wh,
        wh_left=wh_left,
        price_left=None if per_wh is None else wh_left * per_wh,
    )


@dataclass(frozen=True, kw_only=True)
class Battery:
    """The battery now; None: not known, or there is none."""

    percent: float | None = None
    plugged: bool | None = None


def expect(
    usage: Usage, policy: Policy, battery: Battery, *, tokens_left: float, now: float, zone: tzinfo | None = None
) -> Forecast | None:
    """The forecast from how the run went so far; None before its first step.

    Without an end where only a charger that nobody plugged in would let it go on.
    """
    burst, duty = usage.burst_tok_s, usage.duty
    if burst is None or duty is None:
        return None
    windows = parse_hours(policy.hours)
    needed_s = tokens_left / (burst * duty)
    lasts_s = _battery_s(usage, policy, battery)
    drains = lasts_s is not None and lasts_s < needed_s
    share = charge_share(_charge(usage, policy)) if drains else 1.0
    found = forecast(
        tokens_left,
        burst_tok_s=burst,
        duty=duty,
        now=now,
        working_share=share or 1.0,
        windows=windows,
        zone=zone,
    )
    unplugged = battery.plugged is False and (policy.plugged_only or lasts_s == 0.0)
    stuck = (unplugged or not share) and tokens_left > 0
    done_t = None if stuck else found.done_t
    return replace(found, done_t=done_t, open_s=max(0.0, needed_s), battery_s=lasts_s if drains else None)


def _battery_s(usage: Usage, policy: Policy, battery: Battery) -> float | None:
    """Seconds of open time until the floor; None where the charge does not fall or nobody knows."""
    if battery.percent is None:
        return None
    left = max(0.0, battery.percent - policy.battery_floor_percent)
    if not left and battery.plugged is False:
        return 0.0
    return left / usage.used_per_hour * 3600.0 if usage.used_per_hour else None


def _charge(usage: Usage, policy: Policy) -> Charge:
    return Charge(
        used_per_hour=usage.used_per_hour or 0.0,
        charged_per_hour=usage.charged_per_hour or 0.0,
        floor_percent=policy.battery_floor_percent,
        target_percent=max(policy.charge_target_percent, policy.battery_floor_percent + 1.0),
    )
