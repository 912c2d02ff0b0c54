"""The battery as ``termux-battery-status`` tells it, in every shape that the Termux:API application has printed.

The command hangs for ever where that application is absent or frozen, so only a thread of its own may ask.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from typing import Any

from ondevice.device.answer import Answer
from ondevice.device.battery import CHARGING, NAMES, NO_BATTERY, battery_celsius, percent, watts_drawn
from ondevice.device.command import ask_command, mortal

__all__ = ["COMMAND", "PERIOD_S", "TIMEOUT_S", "ask_termux", "find_command", "parse"]

COMMAND = "termux-battery-status"
PERIOD_S, TIMEOUT_S = 20.0, 6.0
_MOST_DRAWN_W = 20.0  # by a phone
_POINTS = str.maketrans(",٫", "..")
_NO_INTENT = "PLUGGED_-1"  # the application got no battery event, and every value is a default


def find_command(env: Mapping[str, str]) -> str | None:
    """The path of the command, or None where it is not installed."""
    return shutil.which(COMMAND, path=env.get("PATH", ""))


def ask_termux(command: str, stopped: Callable[[], bool] = lambda: False, *, timeout_s: float) -> Answer:
    """One answer of the command at this path. Raises what `ask_command` and `parse` raise."""
    return parse(ask_command(mortal(command, timeout_s), name=COMMAND, timeout_s=timeout_s, stopped=stopped))


def parse(text: str) -> Answer:
    """The values in the command's output. Raises ValueError where it is no JSON object."""
    said = _object(text)
    unknown = dict.fromkeys(NAMES, f"{COMMAND} does not tell it")
    plugged, charging = _plugged(said.get("plugged")), CHARGING.get(str(said.get("status")))
    values = {
        "battery_percent": _percent(said),
        "plugged": plugged,
        "charging": charging,
        "battery_c": battery_celsius(_number(said, "temperature")),
        "power_w": _watts(said, charging or ("discharging" if plugged is False else None), unknown),
    }
    if said.get("present") is False and not values["battery_percent"]:
        values |= dict.fromkeys(("battery_percent", "charging", "battery_c", "power_w"))
        unknown = dict.fromkeys(NAMES, NO_BATTERY)
    elif values["battery_c"] is None and "temperature" in said:
        unknown["battery_c"] = f"{COMMAND} says {said['temperature']} C"[:100]
    return Answer.of(COMMAND, values, unknown)


def _object(text: str) -> dict[str, Any]:
    """The object between the first and the last brace: a linker may print warnings before it."""
    begin, end = text.find("{"), text.rfind("}")
    if not text.strip():
        raise ValueError(f"{COMMAND} printed nothing")
    try:
        said = json.loads(text[begin : end + 1])
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict):
        raise ValueError(f"{COMMAND} printed no JSON object")
    return said


def _number(said: Mapping[str, Any], key: str) -> float | None:
    """A finite number, also one written as a string in the phone's language ("31,0"), as old versions did."""
    value = said.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value.translate(_POINTS) if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plugged(word: Any) -> bool | None:
    """A battery that is full or held at a limit is plugged in all the same."""
    if not isinstance(word, str) or word == _NO_INTENT:
        return None
    return True if word.startswith("PLUGGED") else False if word == "UNPLUGGED" else None


def _percent(said: Mapping[str, Any]) -> float | None:
    told = percent(_number(said, "percentage"))
    level, scale = _number(said, "level"), _number(said, "scale")
    if told is not None or level is None or not scale or scale < 0:
        return told
    return percent(100 * level / scale)


def _watts(said: Mapping[str, Any], charging: str | None, unknown: dict[str, str]) -> float | None:
    current, voltage = _number(said, "current"), _number(said, "voltage")
    if current is None or voltage is None:
        unknown["power_w"] = f"{COMMAND} tells no {'current' if current is None else 'voltage'}"
        return None
    try:
        return watts_drawn(current, voltage, charging, most_drawn_w=_MOST_DRAWN_W)
    except LookupError as error:
        unknown["power_w"] = str(error)
        return None
