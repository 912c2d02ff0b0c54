"""What the limits mean on this device: a preset with its reasons, and over it every key that a person wrote.

`resolve` turns wishes with holes into a `Policy` without any. Knows no reading and no order.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace
from functools import lru_cache

from ondevice.governor.hours import parse_hours
from ondevice.run.schema import Limits

__all__ = ["PRESETS", "Policy", "check", "preset_name", "reasons", "resolve"]

COOLED_C = 1.0  # under the warmest battery, before work begins again after a stop
HEADROOM_C = 30.0  # degrees for one unit of headroom, as Android defines it
SEVERE_C = 45.0  # where phones place its 1.0, more or less


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Degrees Celsius, seconds, percent and shares; every value is known."""

    max_battery_c: float
    max_skin_c: float
    max_cpu_c: float
    max_headroom: float  # Android's own scale: 1.0 is severe
    resume_battery_c: float
    back_off_s: float
    duty_max: float
    max_slowdown: float  # of a step against a cold device
    plugged_only: bool
    battery_floor_percent: float
    charge_target_percent: float
    pause_when_screen_on: bool
    min_available_share: float
    hours: str


@dataclass(frozen=True)
class Preset:
    """A policy and, key by key, why."""

    policy: Policy
    about: str
    why: dict[str, str]


_BALANCED = Policy(
    max_battery_c=39.0,
    max_skin_c=43.0,
    max_cpu_c=85.0,
    max_headroom=0.8,
    resume_battery_c=38.0,
    back_off_s=300.0,
    duty_max=1.0,
    max_slowdown=1.25,
    plugged_only=False,
    battery_floor_percent=30.0,
    charge_target_percent=40.0,
    pause_when_screen_on=False,
    min_available_share=0.12,
    hours="",
)

_COMMON_WHY = {
    "min_available_share": "below this share of free memory Android begins to kill apps, this one first",
    "back_off_s": "a phone that was too hot needs minutes, not seconds; BOINC waits as long",
}

PRESETS = {
    "balanced": Preset(
        _BALANCED,
        "as much as a phone does while it stays comfortably warm",
        {
            "max_battery_c": "phones begin to slow themselves down at 40 C, and heat ages a battery",
            "max_skin_c": "warmer than this is unpleasant to hold",
            "max_cpu_c": "below where the kernel lowers the frequency for good",
            "battery_floor_percent": "enough is left for the day",
            **_COMMON_WHY,
        },
    ),
    "gentle": Preset(
        replace(
            _BALANCED,
            max_battery_c=37.0,
            resume_battery_c=36.0,
            max_skin_c=40.0,
            max_cpu_c=75.0,
            max_headroom=0.73,
            duty_max=0.5,
            max_slowdown=1.15,
            battery_floor_percent=50.0,
            charge_target_percent=60.0,
            pause_when_screen_on=True,
        ),
        "hardly felt: for a phone in use all day",
        {
            "max_battery_c": "about the warmth of a hand: nobody notices",
            "duty_max": "half the time belongs to everything else",
            "pause_when_screen_on": "whoever looks at the phone wants it for himself",
            "battery_floor_percent": "training never costs the evening",
            **_COMMON_WHY,
        },
    ),
    "plugged-overnight": Preset(
        replace(
            _BALANCED,
            max_cpu_c=90.0,
            max_slowdown=1.5,
            plugged_only=True,
            battery_floor_percent=20.0,
            charge_target_percent=50.0,
        ),
        "on the charger, where nobody holds it",
        {
            "plugged_only": "a night of work would empty the battery by the morning",
            "max_battery_c": "heat while charging is what ages a battery most, so no warmer than by day",
            "charge_target_percent": "after a pause the phone is charged halfway first",
            **_COMMON_WHY,
        },
    ),
    "desk": Preset(
        replace(
            _BALANCED,
            max_battery_c=45.0,
            resume_battery_c=44.0,
            max_skin_c=50.0,
            max_cpu_c=92.0,
            max_headroom=0.95,
            max_slowdown=2.0,
            battery_floor_percent=20.0,
            charge_target_percent=30.0,
        ),
        "a laptop, desktop or server with a fan, which looks after itself",
        {
            "max_cpu_c": "a little under where laptop processors slow down",
            "max_battery_c": "laptop batteries sit beside the heat and are built for it",
            "duty_max": "nothing speaks against working all the time",
            **_COMMON_WHY,
        },
    ),
}

_KEYS = tuple(field.name for field in fields(Policy))


def preset_name(limits: Limits, *, handheld: bool) -> str:
    """The preset that holds: ``auto`` is balanced for what is held in a hand and desk for everything else."""
    if limits.preset != "auto":
        return limits.preset
    return "balanced" if handheld else "desk"


@lru_cache(maxsize=64)
def resolve(limits: Limits, *, handheld: bool) -> Policy:
    """The preset with every key that was written put over it."""
    policy = PRESETS[preset_name(limits, handheld=handheld)].policy
    written = {key: value for key in _KEYS if (value := getattr(limits, key, None)) is not None}
    policy = replace(policy, **written)
    if "max_battery_c" in written:
        policy = _following(policy, written.keys())
    return replace(policy, resume_battery_c=min(policy.resume_battery_c, policy.max_battery_c))


def _following(policy: Policy, written: Collection[str]) -> Policy:
    """What goes along with another warmest battery, unless it was written too."""
    headroom = min(1.0, max(0.3, 1 + (policy.max_battery_c - SEVERE_C) / HEADROOM_C))
    return replace(
        policy,
        resume_battery_c=policy.resume_battery_c if "resume_battery_c" in written else policy.max_battery_c - COOLED_C,
        max_headroom=policy.max_headroom if "max_headroom" in written else round(headroom, 4),
    )


def check(limits: Limits) -> None:
    """Raises UsageError for what only the governor can tell, so that a night does not end on a slip of the pen."""
    parse_hours(limits.hours or "")


def reasons(limits: Limits, *, handheld: bool) -> dict[str, str]:
    """Key by key the value that holds and why, for ``doctor``, ``plan`` and the curious."""
    name = preset_name(limits, handheld=handheld)
    preset, policy = PRESETS[name], resolve(limits, handheld=handheld)
    said = {"preset": f"{name}: {preset.about}" + (" (chosen for this device)" if limits.preset == "auto" else "")}
    for key in _KEYS:
        why = "written by you" if getattr(limits, key, None) is not None else preset.why.get(key, "")
        said[key] = f"{_figure(getattr(policy, key))}" + (f": {why}" if why else "")
    return said


def _figure(value: float | bool | str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (value or "always") if isinstance(value, str) else f"{value:g}"
