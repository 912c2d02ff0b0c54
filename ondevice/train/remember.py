"""What the governor learned of a device's heat, kept at saves and at the end, and taken up again by the next launch.

Only on the same device with the same sensors; time in between is counted by the clock that runs on through sleep, where
the system was not started anew, and else by the one on the wall. Nothing of it is part of what is learned.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from ondevice.device.cpu import cpu_model, parse_cpuinfo
from ondevice.device.unknown import attempt
from ondevice.device.world import World
from ondevice.errors import OndeviceError
from ondevice.governor.history import History
from ondevice.governor.recall import is_whole, recalled
from ondevice.run.directory import RunDir, boot_id
from ondevice.run.remembered import read_remembered, write_remembered
from ondevice.run.telemetry import as_number, launch_files, read_file

__all__ = ["keep", "take_up"]

COARSE_S = 1.0  # times in a story are rounded
_CPUINFO = Path("/proc/cpuinfo")


def keep(run: RunDir, history: History, world: World) -> None:
    """Writes it. Raises ResourceError or DataError."""
    if not is_whole(history):
        return
    body = {
        "t": world.now(),
        "boot_id": None if world.simulated else boot_id(),
        "boottime_s": world.boottime(),
        "device": _device(world),
        "sources": _sources(world, history),
        "history": history.to_json(),
    }
    write_remembered(run, body)


def take_up(run: RunDir, fresh: History, world: World, *, status: dict[str, Any]) -> tuple[History, str]:
    """The history of a launch that begins now, and why nothing was taken up; empty where that is as it should be.

    ``status``: the last one of the launch before, which tells when that was last seen alive.
    """
    try:
        body = read_remembered(run)
    except OndeviceError as error:
        return fresh, f"What the governor remembered of this device's heat is not used: {error}"
    if body is None:
        return fresh, ""
    raw, then = body.get("history"), as_number(body.get("t"))
    before = History.from_json(raw) if isinstance(raw, dict) else History()
    if then is None or not is_whole(before):
        return fresh, "What the governor remembered of heat is not used: it is of another version of this program."
    if foreign := _foreign(body, world):
        return fresh, f"What the governor remembered of heat is not used: {foreign}."
    passed_s, worked_s = _passed_s(body, then, world), 0.0
    lived_t = _lived_t(run, world, status)
    if lived_t is not None and passed_s is not None:
        worked_s = min(passed_s, max(0.0, lived_t - then))
    now = world.now()
    return recalled(fresh, before, now=now, then=then, passed_s=passed_s, worked_s=worked_s), ""


def _device(world: World) -> dict[str, Any]:
    """What may not change: another phone warms differently."""
    if world.simulated:
        return {"simulated": world.simulated["device"]}
    cpu = attempt({}, "", lambda: cpu_model(parse_cpuinfo(_CPUINFO.read_text("utf-8", "replace"))))
    return {"machine": platform.machine(), "cpu": cpu, "cores": os.sysconf("SC_NPROCESSORS_CONF")}


def _sources(world: World, history: History) -> dict[str, str]:
    """Where each temperature that was learned of came from."""
    known = world.read().sources
    return {name: known[name] for name in history.heat.nodes if name in known}


def _foreign(body: dict[str, Any], world: World) -> str:
    """What is another one than then; a sensor that did not answer yet is not."""
    if body.get("device") != _device(world):
        return "it is of another device"
    sources, known = body.get("sources"), world.read().sources
    if not isinstance(sources, dict):
        return "it does not say what it was felt with"
    changed = sorted(name for name, source in sources.items() if known.get(name, source) != source)
    return f"{changed[0]} is read from {known[changed[0]]}, not from {sources[changed[0]]}" if changed else ""


def _passed_s(body: dict[str, Any], then: float, world: World) -> float | None:
    """Seconds since it was kept; None where clocks do not tell."""
    boottime_s, boot = as_number(body.get("boottime_s")), body.get("boot_id")
    if not world.simulated and boottime_s is not None and boot is not None and boot == boot_id():
        passed_s = world.boottime() - boottime_s
    else:
        passed_s = world.now() - then
    return max(0.0, passed_s) if passed_s > -COARSE_S else None


def _lived_t(run: RunDir, world: World, status: dict[str, Any]) -> float | None:
    """When the launch before was last seen at work, by the clock of the world; None where nobody knows."""
    if not world.simulated:
        return None if status.get("hold") else as_number(status.get("heartbeat_t"))
    files, lived_t = launch_files(run.telemetry), None
    for record in read_file(files[-2]) if len(files) > 1 else ():  # the newest is this launch's
        lived_t = as_number(record.get("sim_t")) or lived_t
    return lived_t
