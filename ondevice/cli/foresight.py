"""How long a planned run will really take here: with rests, hours and energy, as far as anybody can know.

The pace comes from what earlier runs did on this device; a machine that nothing holds back needs no experience; for
anything else it is unknown, and a plan says the earliest end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ondevice.cli.doctor_sensors import unwatched
from ondevice.device.battery import NO_BATTERY
from ondevice.device.readings import Sensors
from ondevice.governor.forecast import Energy, energy, forecast, wh_of
from ondevice.governor.hours import parse_hours
from ondevice.governor.presets import resolve
from ondevice.run.directory import RunDir, list_runs
from ondevice.run.liveness import read_status
from ondevice.run.schema import Limits
from ondevice.run.telemetry import as_number
from ondevice.run.usage import Usage
from ondevice.train.plan import SHARE_OF_TIME

__all__ = ["Foresight", "experience", "foresee", "has_battery", "heat_warning"]

ENOUGH_S = 600.0  # a device needs minutes to show how warm it becomes
ANSWER_S = 3.0


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """``known``: else the duty is the most there can be and ``done_t`` the earliest end. ``why``: where it comes from.

    ``open_s`` is the time with rests but without closed hours; ``done_t`` is unix seconds if it began now.
    """

    known: bool
    duty: float
    why: str
    sustained_tok_s: float
    open_s: float
    done_t: float | None
    hours: str
    energy: Energy


def foresee(
    limits: Limits,
    seen: tuple[str, Usage] | None,
    *,
    tokens: int,
    tok_s: float,
    handheld: bool,
    battery: bool,
    price: float | None = None,
    now: float | None = None,
) -> Foresight:
    """What ``tokens`` will take at a burst rate; ``seen``: an earlier run here and how it went."""
    policy = resolve(limits, handheld=handheld)
    known, duty, why = _duty(seen, policy.duty_max, held=handheld or battery)
    windows = parse_hours(policy.hours)
    found = forecast(tokens, burst_tok_s=tok_s, duty=duty, now=time.time() if now is None else now, windows=windows)
    power_w = seen[1].power_w if seen else None
    return Foresight(
        known=known,
        duty=duty,
        why=why,
        sustained_tok_s=found.sustained_tok_s,
        open_s=tokens / found.sustained_tok_s,
        done_t=found.done_t,
        hours=policy.hours,
        energy=energy(
            wh_of(power_w, found.sustained_tok_s),
            tokens_left=tokens,
            price_per_kwh=limits.price_per_kwh if price is None else price,
        ),
    )


def _duty(seen: tuple[str, Usage] | None, most: float, *, held: bool) -> tuple[bool, float, str]:
    if seen is not None and seen[1].duty:
        return True, min(most, seen[1].duty), f"as run {seen[0]} did here"
    if held:
        return False, SHARE_OF_TIME * most, "no run here has shown yet how much heat and battery allow"
    return True, SHARE_OF_TIME * most, "nothing holds this machine back"


def experience(folder: Path | None = None) -> tuple[str, Usage] | None:
    """The name and the usage of the run that was active here last, of those that ran long enough to tell.

    Runs on a simulated phone tell nothing of this device.
    """
    found = [(run.name, *_last_usage(run)) for run in list_runs(folder)]
    told = [each for each in found if each[2].open_s >= ENOUGH_S and each[2].duty]
    latest = max(told, key=lambda each: each[1], default=None)
    return None if latest is None else (latest[0], latest[2])


def _last_usage(run: RunDir) -> tuple[float, Usage]:
    status = read_status(run)
    usage = Usage() if status.get("simulated") else Usage.from_json(status.get("usage"))
    return as_number(status.get("heartbeat_t")) or 0.0, usage


def has_battery(folder: Path) -> bool:
    """Whether this machine has a battery; True where nobody can tell."""
    sensors = Sensors(folder)
    try:
        return sensors.read().unknown.get("battery_percent") != NO_BATTERY
    finally:
        sensors.close()


def heat_warning(folder: Path, *, handheld: bool) -> str:
    """What it means where no heat can be read; empty where it can. A phone gets some seconds to answer."""
    sensors = Sensors(folder)
    try:
        return unwatched(sensors.read(), handheld=handheld) and unwatched(sensors.settle(ANSWER_S), handheld=handheld)
    finally:
        sensors.close()
