"""Asking a run for something: a letter to its trainer where one lives, else a sentence that says why not.

What becomes of a letter is told by the files (`RunSnapshot.asks`), never by hope.
"""

from __future__ import annotations

from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run import control
from ondevice.run.directory import RunDir
from tui.snapshot import DEAD, RunSnapshot

__all__ = ["SENDER", "ask"]

SENDER = "ondevice-tui"
_WORDED = frozenset({"sample", "limit", "pin"})  # two of them are two wishes


def ask(run: RunSnapshot, verb: str, args: dict[str, Any] | None = None) -> str:
    """Drops a letter, unless the same one lies there already. Gives a sentence where it could not, else nothing."""
    if not run.alive:
        if run.state not in DEAD:
            return run.trouble[0] if run.trouble else f"{run.name} is {run.state}."
        return f"No trainer holds {run.name}; " + ("it has finished." if run.state == "finished" else "r starts one.")
    last = run.asked(verb)
    if verb not in _WORDED and last is not None and last.state == "asked":
        return ""
    try:
        control.send(RunDir(run.path), verb, args, sender=SENDER)
    except (OndeviceError, OSError) as error:
        return f"Could not ask {run.name} to {verb}: {error}"
    return ""
