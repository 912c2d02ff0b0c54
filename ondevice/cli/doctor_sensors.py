"""What doctor says of a reading: values with source and age, what is missing and why, and what would mend it.

Pure: facts and a reading in, text out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ondevice.cli.doctor_remedies import TERMUX_API
from ondevice.device.battery import NAMES, NO_BATTERY
from ondevice.device.facts import DeviceFacts
from ondevice.device.readings import Reading
from ondevice.governor.caps import UNKNOWN_DUTY
from ondevice.governor.signals import is_known

__all__ = ["Gap", "gaps", "readable", "unwatched", "without_temperature"]

_SAME_SOURCE = "from where Termux itself came from (F-Droid or GitHub: the two do not work together)"
_EXEMPT = "exempt both from battery optimisation (Android settings > Apps > Battery > Unrestricted)"
_STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_CHARGING = {"not_charging": "not charging"}
_HOT_ROOM = (  # seen on the simulated phone: 1.5 C too much at 28 C, 2.6 C at 35 C
    "In a room warmer than 25 C that does not keep a battery below 40 C: train where it is cool, or set "
    "limits.duty_max = 0.2."
)
_LESSER = {
    "battery_c": "battery temperature",
    "plugged": "power supply",
    "charging": "charging state",
    "power_w": "power drawn",
    "skin_c": "temperature of the body",
    "headroom": "thermal headroom",
    "freq_share": "processor speed",
    "screen_on": "screen",
}


@dataclass(frozen=True)
class Gap:
    """Something that cannot be read here, with the reason; ``remedy`` is a sentence, ``command`` one to paste."""

    text: str
    remedy: str | None = None
    command: str | None = None


def readable(reading: Reading) -> Iterator[str]:
    """One line for each thing that can be read."""
    if reading.cpu_c is not None:
        yield f"Processor {reading.cpu_c:.0f} C{_origin(reading, 'cpu_c')}"
    if reading.battery_percent is not None:
        yield f"{', '.join(_battery(reading))}{_origin(reading, *NAMES)}"
    elif reading.unknown.get("battery_percent") == NO_BATTERY:
        yield "No battery: this machine lives on the mains"
    elif reading.battery_c is not None:
        yield f"Battery {reading.battery_c:.1f} C{_origin(reading, 'battery_c')}"
    if reading.skin_c is not None:
        yield f"Body {reading.skin_c:.0f} C{_origin(reading, 'skin_c')}"
    if reading.thermal_status is not None:
        room = "" if reading.headroom is None else f", headroom {reading.headroom:.2f} (1 is severe)"
        word = _STATUSES[reading.thermal_status]
        yield f"Thermal status {reading.thermal_status} of 6, {word}{room}{_origin(reading, 'thermal_status')}"
    if reading.freq_share is not None:
        yield f"Fastest cores at {100 * reading.freq_share:.0f} % of their top speed{_origin(reading, 'freq_share')}"
    if reading.screen_on is not None:
        yield f"Screen {'on' if reading.screen_on else 'off'}{_origin(reading, 'screen_on')}"


def without_temperature(facts: DeviceFacts, reading: Reading) -> str:
    """What it means for the pace that no heat can be read; empty where it can, or on a machine without a battery."""
    return unwatched(reading, handheld=facts.platform == "android" or facts.termux is not None)


def unwatched(reading: Reading, *, handheld: bool) -> str:
    """The same, for those who know no more of the machine than whether it is a phone or a tablet."""
    if is_known(reading) or (not handheld and reading.unknown.get("battery_percent") == NO_BATTERY):
        return ""
    when = "" if handheld else " while on battery"
    text = (
        f"No heat can be read, so{when} a run works at most {100 * UNKNOWN_DUTY:.0f} % of the time, and less while "
        "its steps become slower."
    )
    return f"{text} {_HOT_ROOM}" if handheld else text


def _battery(reading: Reading) -> Iterator[str]:
    yield f"Battery {reading.battery_percent:.0f} %"
    yield {True: "plugged in", False: "on battery", None: "power unknown"}[reading.plugged]
    if reading.charging and not (reading.plugged is False and reading.charging == "discharging"):
        yield _CHARGING.get(reading.charging, reading.charging)
    if reading.battery_c is not None:
        yield f"{reading.battery_c:.1f} C"
    if reading.power_w:
        yield f"{abs(reading.power_w):.1f} W {'drawn' if reading.power_w > 0 else 'charged'}"


def _origin(reading: Reading, *names: str) -> str:
    """`` (termux-battery-status, 12 s ago)``: the sources, each once, with the age of its oldest value."""
    oldest: dict[str, float] = {}
    for name in names:
        if source := reading.sources.get(name):
            oldest[source] = max(oldest.get(source, 0.0), reading.ages_s.get(name, 0.0))
    told = [f"{source}, {age_s:.0f} s ago" if age_s >= 1 else source for source, age_s in oldest.items()]
    return f" ({'; '.join(told)})" if told else ""


def gaps(facts: DeviceFacts, reading: Reading) -> Iterator[Gap]:
    """What cannot be read, the important things first and the others in one line."""
    told: set[str] = set()
    if reading.cpu_c is None:
        told.add("cpu_c")
        yield _no_processor(reading)
    if reading.battery_percent is None:
        told |= set(NAMES) if reading.unknown.get("battery_percent") else {"battery_percent"}
        if reading.unknown.get("battery_percent") != NO_BATTERY:
            yield _no_battery(facts, reading.unknown.get("battery_percent"))
    if facts.platform == "android" or facts.termux:
        told |= {"thermal_status", "headroom"} if "thermal_status" in reading.unknown else set()
        yield from _no_status(facts, reading.unknown)
    else:
        told |= {"thermal_status", "headroom", "skin_c"}  # no laptop has them
    yield from _others(reading, told)


def _no_processor(reading: Reading) -> Gap:
    reason = reading.unknown.get("cpu_c")
    if reason is None:
        return Gap("No processor temperature is readable; training works without.")
    return Gap(f"Processor temperature: {reason}. Training works without: step time tells when it gets too hot.")


def _no_battery(facts: DeviceFacts, reason: str | None) -> Gap:
    if reason is None:
        return Gap("No battery is readable.")
    text = f"No battery is readable: {reason}."
    if "termux-battery-status" not in reason:
        return Gap(text)
    outside = "In Termux, outside proot: " if facts.proot else ""
    install = f"install the Termux:API app {_SAME_SOURCE}"
    if "not installed" in reason:
        remedy = f"{install}, and its package:"
    elif "did not answer" in reason:
        remedy = f"{install}, open it once, {_EXEMPT}, and bring its package up to date:"
    else:
        remedy = f"{install}, in its newest version, and bring its package up to date:"
    remedy = f"{outside}{remedy}" if outside else f"{remedy[0].upper()}{remedy[1:]}"
    return Gap(text, remedy, TERMUX_API)


def _no_status(facts: DeviceFacts, unknown: dict[str, str]) -> Iterator[Gap]:
    if reason := unknown.get("thermal_status"):
        remedy = "Native Termux may have it." if facts.proot else None
        yield Gap(f"No thermal status of Android: {reason}. Training works without.", remedy)


def _others(reading: Reading, told: set[str]) -> Iterator[Gap]:
    by_reason: dict[str, list[str]] = {}
    for name, reason in reading.unknown.items():
        if name in _LESSER and name not in told:
            by_reason.setdefault(reason, []).append(_LESSER[name])
    if by_reason:
        listed = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in by_reason.items())
        yield Gap(f"Also unknown: {listed}.")
