"""Signs of life: what a process writes down about its memory every second, so that its death can be explained later.

Plain reads of /proc and, where the system allows, of its own memory group: about a tenth of a millisecond. What cannot
be read is left out. The scene of a death (`read_scene`) is what the system says of it afterwards.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

from ondevice.device.clock import boottime_s
from ondevice.device.host import on_android
from ondevice.device.memory import memory_within, peak_rss_mb, rss_mb
from ondevice.device.memory_group import MemoryGroup
from ondevice.device.unknown import attempt
from ondevice.run.directory import boot_id
from ondevice.run.postmortem import Scene

__all__ = ["Vitals", "read_scene"]

_PROC, _SYS, _KERNEL_LOG = Path("/proc"), Path("/sys"), Path("/dev/kmsg")
_VICTIM = re.compile(rb"^\d+,\d+,(\d+),[^;]*;.*ut of memory: Killed process (\d+)", re.MULTILINE)


class Vitals:
    """Signs of life of this process."""

    def __init__(self, *, proc: Path = _PROC, sysfs: Path = _SYS) -> None:
        self.group = MemoryGroup.of_this_process(proc, sysfs)
        self._proc, self._android = proc, on_android(os.environ)
        self._peak_before_mb = peak_rss_mb(proc) or 0.0

    def read(self) -> dict[str, Any]:
        """Sizes in MiB. ``peak_rss_mb`` is there once it grew beyond what earlier work of the process had needed."""
        memory = attempt({}, "", lambda: memory_within(self.group, self._proc))
        peak_mb = peak_rss_mb(self._proc) or 0.0
        signs: dict[str, Any] = {
            "rss_mb": _rounded(attempt({}, "", lambda: rss_mb(self._proc))),
            "peak_rss_mb": _rounded(peak_mb) if peak_mb > self._peak_before_mb else None,
            "mem_available_mb": _rounded(memory.available_mb if memory else None),
            "mem_total_mb": _rounded(memory.total_mb if memory else None),
            "processes": attempt({}, "", self._count_processes) if self._android else None,
        }
        if self.group is not None:
            signs |= {
                "memory_group": self.group.path,
                "memory_limit_mb": _rounded(self.group.limit_mb),
                "oom_kills": self.group.oom_kills(),
            }
        return {name: value for name, value in signs.items() if value is not None}

    def _count_processes(self) -> int:
        return sum(name.isdigit() for name in os.listdir(self._proc))  # Android shows an app only its own


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def read_scene(*, proc: Path = _PROC, sysfs: Path = _SYS, kernel_log: Path = _KERNEL_LOG) -> Scene:
    """What the system says now that may explain a death. Never raises."""
    group = MemoryGroup.of_this_process(proc, sysfs)
    return Scene(
        boot_id=boot_id(),
        boottime_s=boottime_s(),
        memory_group=group.path if group else None,
        oom_kills=group.oom_kills() if group else None,
        victims=_victims(kernel_log),
        android=on_android(os.environ),
    )


def _victims(kernel_log: Path) -> dict[int, float]:
    """Processes that the kernel's log says were killed for want of memory, and when, in seconds since boot.

    Empty where the log is not ours to read. Its clock stands still in sleep: a time may be too late, never too early.
    """
    found: dict[int, float] = {}
    try:
        fd = os.open(kernel_log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return found
    asleep_s = boottime_s() - time.monotonic()
    try:
        while line := _next_line(fd):
            found |= {int(pid): int(microseconds) / 1e6 + asleep_s for microseconds, pid in _VICTIM.findall(line)}
    except OSError:  # no more lines
        pass
    finally:
        os.close(fd)
    return found


def _next_line(fd: int) -> bytes:
    try:
        return os.read(fd, 8192)
    except BrokenPipeError:  # the line was overwritten meanwhile; the next one follows
        return os.read(fd, 8192)
