"""Which world a launch lives in: this machine, or a simulated device, which goes on from where the last launch left it.

The story of that launch says how warm the simulated phone was and what time it had, so that a kill does not cool it.
"""

from __future__ import annotations

import time
from typing import Any

from ondevice.device.simulate_live import SimulatedWorld
from ondevice.device.simulate_wish import DeviceWish
from ondevice.device.world import Machine, Readable, World
from ondevice.run.directory import RunDir
from ondevice.run.telemetry import as_number, launch_files, read_file

__all__ = ["make_world"]


def make_world(run: RunDir, wish: DeviceWish | None, sensors: Readable) -> World:
    """The world of a launch that begins now. Raises UsageError for a recording that cannot be read."""
    if wish is None:
        return Machine(sensors)
    before, gap_s = _remembered(run, wish)
    return SimulatedWorld(wish, real=sensors, before=before, gap_s=gap_s)


def _remembered(run: RunDir, wish: DeviceWish) -> tuple[dict[str, Any] | None, float]:
    """What the last launch told of the same simulated device, and for how many seconds the device was idle since."""
    files = launch_files(run.telemetry)
    memory, told_t, until_t = None, 0.0, None
    for record in read_file(files[-1]) if files else ():
        if record["kind"] == "launch" and _device(record) != wish.text:
            return None, 0.0
        until_t = as_number(record.get("sim_t")) or until_t
        if record["kind"] == "reading" and _is_whole(record.get("sim")):
            memory, told_t = record["sim"], record["t"]
    if memory is None:
        return None, 0.0
    unseen_s = (until_t or 0.0) - memory["began_t"] - memory["at_s"]  # its clock never goes back
    return memory, max(unseen_s, time.time() - told_t)


def _device(record: dict[str, Any]) -> Any:
    told = record.get("simulated")
    return told.get("device") if isinstance(told, dict) else None


def _is_whole(memory: Any) -> bool:
    if not isinstance(memory, dict) or None in (as_number(memory.get("began_t")), as_number(memory.get("at_s"))):
        return False
    nodes_c = memory.get("nodes_c", {})
    return isinstance(nodes_c, dict) and None not in map(as_number, [*nodes_c.values(), memory.get("percent", 0.0)])
