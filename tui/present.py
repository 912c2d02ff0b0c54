"""The present tense of a run as fields of its snapshot: status, last reading and limits. Pure functions."""

from __future__ import annotations

from typing import Any

from tui.snapshot import Heat, Sensor
from tui.values import flag, number, table, text, whole
from tui.words import printable

__all__ = ["heat_of", "present", "sensors_of"]

_STATUS_NUMBERS = (
    "step_s", "tok_s", "tok_s_sustained", "eta_s", "done_t", "until_t", "epochs", "slept_s", "frozen_s", "duty",
    "battery_s", "wh_left", "price_left", "plan_mb",
)  # fmt: skip
_FELT = (
    "rss_mb", "available_mb", "total_mb", "disk_free_mb", "cpu_c", "battery_c", "skin_c", "battery_percent", "power_w",
)  # fmt: skip
_LIMITS = ("max_rss_mb", "min_free_disk_mb", "battery_floor_percent")
_HEAT = (("battery_c", "battery"), ("skin_c", "body"), ("cpu_c", "processor"))
_SENSORS = (
    ("cpu_c", "processor", "°C"),
    ("battery_c", "battery", "°C"),
    ("skin_c", "body", "°C"),
    ("headroom", "heat headroom", ""),
    ("thermal_status", "thermal status", ""),
    ("battery_percent", "charge", "%"),
    ("plugged", "plugged in", ""),
    ("charging", "charging", ""),
    ("power_w", "power drawn", "W"),
    ("freq_share", "core speed", "of top"),
    ("screen_on", "screen on", ""),
    ("rss_mb", "this process", "MB"),
    ("available_mb", "memory free", "MB"),
    ("total_mb", "memory", "MB"),
    ("disk_free_mb", "disk free", "MB"),
)
_LIMIT_OF = {
    "cpu_c": "max_cpu_c",
    "battery_c": "max_battery_c",
    "skin_c": "max_skin_c",
    "headroom": "max_headroom",
    "battery_percent": "battery_floor_percent",
    "rss_mb": "max_rss_mb",
    "disk_free_mb": "min_free_disk_mb",
}


def present(status: dict[str, Any], reading: dict[str, Any], limits: dict[str, Any], *, state: str) -> dict[str, Any]:
    """What the status tells; sensors from the last reading where the status has none.

    ``limits`` are those that hold. What keeps the run now is told only of one that lives.
    """
    felt = {**reading, **{key: status[key] for key in status if key in _SENSOR_NAMES}}
    numbers = {key: number(status, key) for key in _STATUS_NUMBERS}
    if state not in ("running", "resting", "waiting"):
        numbers |= {"until_t": None, "duty": None}
    hold, wait = printable(text(status, "hold")), printable(text(status, "wait"))
    return {
        **numbers,
        **{key: number(felt, key) for key in _FELT},
        **{key: number(limits, key) for key in _LIMITS},
        "plugged": flag(felt, "plugged"),
        "charging": printable(text(felt, "charging")),
        "hold": hold,
        "why": (hold or wait) if state in ("resting", "waiting", "asleep") or wait else "",
        "phase": printable(text(status, "phase")),
        "recorded": printable(text(status, "recorded")),
        "simulated": printable(text(table(status, "simulated"), "device")),
        "threads": whole(table(status, "fit"), "threads"),
        "tokens_total": whole(status, "tokens_total"),
        "last_error": printable(text(status, "last_error")),
        "heat": heat_of(felt, limits),
        "sensors": sensors_of(felt, limits),
    }


_SENSOR_NAMES = frozenset(name for name, _, _ in _SENSORS)


def heat_of(felt: dict[str, Any], limits: dict[str, Any]) -> tuple[Heat, ...]:
    """Thermometers that can be read, the one nearest to its limit first."""
    heat = [
        Heat(name=name, label=label, now_c=number(felt, name), limit_c=number(limits, f"max_{name}"))
        for name, label in _HEAT
    ]
    known = [one for one in heat if one.now_c is not None]
    return tuple(sorted(known, key=lambda one: -1e9 if one.over_c is None else one.over_c, reverse=True))


def sensors_of(felt: dict[str, Any], limits: dict[str, Any]) -> tuple[Sensor, ...]:
    """Every value of the last reading, unknown ones included; none where there was no reading."""
    if not felt:
        return ()
    return tuple(
        Sensor(
            name=name, label=label, value=_value(felt, name), unit=unit, limit=number(limits, _LIMIT_OF.get(name, ""))
        )
        for name, label, unit in _SENSORS
    )


def _value(felt: dict[str, Any], name: str) -> float | str | bool | None:
    said = flag(felt, name)
    if said is None:
        value = number(felt, name)
        return (printable(text(felt, name)) or None) if value is None else value
    return said
