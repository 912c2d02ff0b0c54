"""The exceptions a person may meet, and the exit code each one ends the program with.

::

    OndeviceError            one sentence for a person: what is wrong, where, what to do
      UsageError             exit 2    bad flag or bad config key (the nearest name is offered)
      DataError              exit 3    unreadable, malformed, contract broken (file:line)
      CheckpointError        exit 4    nothing valid to resume from, foreign or newer format
      ResourceError          exit 5    will not fit: memory, disk, battery
      DeviceError            exit 6    the platform lacks what was asked
      RunBusy                exit 7    another trainer holds this run
      Interrupted            exit 130  a person or the system asked to stop

Anything else that escapes is a bug: its traceback goes to a log file, and the person gets one line with
the path of that log. This module imports nothing of the project.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "DataError",
    "DeviceError",
    "Interrupted",
    "OndeviceError",
    "ResourceError",
    "RunBusy",
    "UsageError",
    "nearest",
]


class OndeviceError(Exception):
    """One sentence for a person. ``exit_code`` is what the program ends with."""

    exit_code = 1


class UsageError(OndeviceError):
    """A flag or a config key is wrong."""

    exit_code = 2


class DataError(OndeviceError):
    """A file of text, tokens or settings cannot be read or breaks its contract."""

    exit_code = 3


class CheckpointError(OndeviceError):
    """No valid checkpoint, or one of a foreign or newer format."""

    exit_code = 4


class ResourceError(OndeviceError):
    """Memory, disk or battery do not suffice."""

    exit_code = 5


class DeviceError(OndeviceError):
    """The platform lacks what was asked, such as a package that is not installed."""

    exit_code = 6


class RunBusy(OndeviceError):
    """Another trainer holds the run directory."""

    exit_code = 7


class Interrupted(OndeviceError):
    """Stopped on request; the state was saved first where there was any."""

    exit_code = 130


def nearest(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the closest known name, else an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{match[0]}'?)" if match else ""
