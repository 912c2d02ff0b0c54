"""Android's own judgement of its heat: the thermal status (0 none .. 6 shutdown) and the headroom (1.0 = severe).

The functions are in libandroid.so, and some systems crash while loading it: a child process that may die loads it, asks
once and prints the answer. Anything that goes wrong means "not available", with the reason.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from typing import Any

from ondevice.device.answer import Answer
from ondevice.device.command import ask_command

__all__ = ["LIBRARY", "NAMES", "PERIOD_S", "ask_android"]

NAMES = ("thermal_status", "headroom")
LIBRARY = "libandroid.so"
PERIOD_S = 30.0  # Android answers NaN to who asks for the headroom more than once in 10 s
TIMEOUT_S = 6.0
_SOURCE = "Android"
_STATUSES = range(7)

# The child. An alarm ends it when this process was killed meanwhile.
_PROGRAM = """
import ctypes, json, signal, sys
signal.alarm(int(sys.argv[2]))
library = ctypes.CDLL(sys.argv[1])
def function(name, result, *arguments):
    found = getattr(library, name, None)
    if found is not None:
        found.restype, found.argtypes = result, (ctypes.c_void_p, *arguments)
    return found
acquire = getattr(library, "AThermal_acquireManager", None)
status = function("AThermal_getCurrentThermalStatus", ctypes.c_int)
headroom = function("AThermal_getThermalHeadroom", ctypes.c_float, ctypes.c_int)
said = {}
if acquire and status:
    acquire.restype, acquire.argtypes = ctypes.c_void_p, ()
    manager = acquire()
    if manager:
        said["status"] = status(manager)
        if headroom:
            said["headroom"] = headroom(manager, 0)
    else:
        said["problem"] = "Android gives no thermal manager"
else:
    said["problem"] = "this Android has no thermal functions (they came with version 11)"
print(json.dumps(said))
"""


def ask_android(
    stopped: Callable[[], bool] = lambda: False, *, library: str = LIBRARY, timeout_s: float = TIMEOUT_S
) -> Answer:
    """Status and headroom now. Raises LookupError where Android does not tell, and what `ask_command` raises."""
    argv = [sys.executable, "-P", "-S", "-c", _PROGRAM, library, str(math.ceil(timeout_s) + 2)]
    said = json.loads(ask_command(argv, name="Android's thermal service", timeout_s=timeout_s, stopped=stopped))
    if "problem" in said:
        raise LookupError(said["problem"])
    unknown: dict[str, str] = {}
    values = {"thermal_status": _status(said["status"], unknown), "headroom": _headroom(said.get("headroom"), unknown)}
    return Answer.of(_SOURCE, values, unknown)


def _status(status: int, unknown: dict[str, str]) -> int | None:
    if status in _STATUSES:
        return status
    unknown["thermal_status"] = f"Android says {status}, which means an error"
    return None


def _headroom(headroom: Any, unknown: dict[str, str]) -> float | None:
    if headroom is None:
        unknown["headroom"] = "this Android has no headroom (it came with version 12)"
    elif math.isnan(headroom):
        unknown["headroom"] = "Android says NaN: this phone has none, or programs ask for it too often"
    elif not 0 <= headroom < 100:
        unknown["headroom"] = f"Android says {headroom:g}"
    return None if "headroom" in unknown else round(headroom, 3)
