"""How a launch ends, and the last words of one that something other than the loop ended: an error, a refused
allocation, a second Ctrl-C.

A launch without last words counts as killed, and is started again by watchers; so whatever can still speak does.
"""

from __future__ import annotations

from dataclasses import dataclass

from ondevice.errors import OndeviceError, ResourceError
from ondevice.run.telemetry import TelemetryWriter, read_file

__all__ = ["Outcome", "tell_end"]

_LONGEST = 500  # letters of a message that is not ours


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a launch ended: ``finished``, ``stopped`` or ``failed``, and a sentence why. ``stalled``: a stage of a chain
    that goes on when the rest of it is left out."""

    outcome: str
    step: int
    why: str = ""
    stalled: str = ""


def tell_end(name: str, telemetry: TelemetryWriter, step: int, error: BaseException) -> None:
    """Writes the ``end`` record where the loop has not.

    Raises ResourceError for lacking memory, which is told like a kill, so that the next launch makes do with less.
    """
    if any(record["kind"] == "end" for record in read_file(telemetry.path)):
        return
    if _lacks_memory(error):
        why = "for want of memory: the system refused more"
        telemetry.write("note", step, text=_words(error), cause="memory", why=why)
        raise ResourceError(
            f"{name}: there was not enough memory after step {step}; `ondevice train {name}` goes on from the last "
            "checkpoint with smaller pieces."
        ) from error
    if isinstance(error, KeyboardInterrupt):
        telemetry.write("end", step, outcome="stopped", why="left at once and unsaved, as asked twice")
    elif isinstance(error, OndeviceError):
        telemetry.write("end", step, outcome="failed", why=str(error))
    else:
        telemetry.write("end", step, outcome="failed", why=f"a bug in ondevice ({_words(error)})")


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:_LONGEST]


def _lacks_memory(error: BaseException) -> bool:
    """Torch tells of a refused allocation by a RuntimeError of its allocator."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
