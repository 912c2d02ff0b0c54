"""What doctor says of a phone's upkeep: whether runs stay awake, are seen, and come back after a kill.

Pure: what there is in, findings out.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import ondevice
from ondevice.cli.doctor_finding import Finding
from ondevice.cli.doctor_remedies import TERMUX_API
from ondevice.device.facts import DeviceFacts
from ondevice.device.upkeep import Upkeep

__all__ = ["upkeep_findings"]

_TOPIC = "phone"


def upkeep_findings(facts: DeviceFacts, upkeep: Upkeep) -> Iterator[Finding]:
    """Notes, never problems: a run that is killed can always be started again by hand."""
    if facts.proot and not upkeep.wake_lock:
        text = "Inside proot a run neither keeps the phone awake nor comes back by itself."
        yield Finding("note", _TOPIC, text, "In Termux itself both work.")
        return
    yield _comes_back(upkeep)
    yield _stays_awake(upkeep)
    if upkeep.notification:
        yield Finding("ok", _TOPIC, "A notification shows the run, with buttons (if the Termux:API app is there)")
    else:
        missing = "No notification of runs: termux-notification is not installed."
        yield Finding("note", _TOPIC, missing, None, TERMUX_API)
    yield Finding(
        "note",
        _TOPIC,
        "Whether Android limits Termux's battery use and its child processes cannot be read.",
        "Settings > Apps > Termux > Battery: unrestricted; Developer options > Disable child process restrictions.",
    )


def _comes_back(upkeep: Upkeep) -> Finding:
    if upkeep.scheduled:
        after = " and after a boot" if upkeep.boot else ""
        return Finding("ok", _TOPIC, f"Killed runs come back: Android looks every 15 minutes or later{after}")
    remedy = "Needs the Termux:API app; Termux:Boot does the same after a boot."
    return Finding("note", _TOPIC, "Nothing starts a killed run again.", remedy, f"sh {_installer()} --scripts-only")


def _stays_awake(upkeep: Upkeep) -> Finding:
    if upkeep.wake_lock:
        return Finding("ok", _TOPIC, "The phone is kept awake while a run trains (termux-wake-lock)")
    remedy = "Bring Termux up to date; until then hold it awake from its notification."
    return Finding("note", _TOPIC, "No termux-wake-lock: the phone may sleep through a run.", remedy, "pkg upgrade")


def _installer() -> str:
    path = Path(ondevice.__file__).parents[1] / "termux" / "install.sh"
    if not path.is_file():
        return "termux/install.sh"
    if path.is_relative_to(Path.home()):
        return f"~/{shlex.quote(str(path.relative_to(Path.home())))}"
    return shlex.quote(str(path))
