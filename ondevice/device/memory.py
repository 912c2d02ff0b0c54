"""Memory of the machine and of this process, in MiB (2**20 bytes).

Reads /proc where there is one, because psutil fails in parts on Android; psutil and getrusage elsewhere.
"""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ondevice.device.host import platform_name
from ondevice.device.memory_group import MemoryGroup

__all__ = [
    "MIB",
    "MachineMemory",
    "give_back_freed_blocks",
    "give_back_large_blocks",
    "give_back_memory",
    "machine_memory",
    "memory_within",
    "peak_rss_mb",
    "rss_mb",
]

MIB = 1 << 20
_PROC, _SYS = Path("/proc"), Path("/sys")
_M_MMAP_THRESHOLD = -3
_M_PURGE = -101  # bionic's malloc.h


@dataclass(frozen=True)
class MachineMemory:
    """MiB. ``available_mb`` is what can be had without swapping, an estimate of the kernel. ``of_group``: the total is
    the limit of the process's control group, whose members need not leave anything to others."""

    total_mb: float
    available_mb: float
    swap_total_mb: float
    swap_free_mb: float
    of_group: bool = False


def machine_memory(proc: Path = _PROC, sysfs: Path = _SYS) -> MachineMemory:
    """The memory of the whole machine, or as much of it as the process's control group lets it have. Raises OSError,
    LookupError or ImportError where it cannot be read."""
    return memory_within(MemoryGroup.of_this_process(proc, sysfs), proc)


def memory_within(group: MemoryGroup | None, proc: Path = _PROC) -> MachineMemory:
    """As `machine_memory`, for who looked the group up before."""
    if (proc / "meminfo").exists():
        return _within_group(_from_meminfo((proc / "meminfo").read_text()), group)
    import psutil  # here, so that doctor can still say that psutil is missing

    ram, swap = psutil.virtual_memory(), psutil.swap_memory()
    return MachineMemory(ram.total / MIB, ram.available / MIB, swap.total / MIB, swap.free / MIB)


def _within_group(memory: MachineMemory, group: MemoryGroup | None) -> MachineMemory:
    if group is None or group.limit_mb is None:
        return memory
    room_mb = None
    with suppress(OSError, ValueError):  # a group may tell its limit alone
        room_mb = group.room_mb
    rooms_mb = (memory.available_mb, group.limit_mb, room_mb)
    return dataclasses.replace(
        memory,
        total_mb=min(memory.total_mb, group.limit_mb),
        of_group=group.limit_mb < memory.total_mb,
        available_mb=min(each for each in rooms_mb if each is not None),
    )


def _from_meminfo(text: str) -> MachineMemory:
    kib = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+)", text, re.MULTILINE)}
    if "MemTotal" not in kib:
        raise LookupError("meminfo has no MemTotal")
    available = kib.get("MemAvailable", kib.get("MemFree", 0) + kib.get("Cached", 0))  # before Linux 3.14
    return MachineMemory(
        total_mb=kib["MemTotal"] / 1024,
        available_mb=available / 1024,
        swap_total_mb=kib.get("SwapTotal", 0) / 1024,
        swap_free_mb=kib.get("SwapFree", 0) / 1024,
    )


def rss_mb(proc: Path = _PROC) -> float:
    """Resident memory of this process in MiB. Raises OSError, ValueError or ImportError where it cannot be read."""
    statm = proc / "self/statm"
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MIB  # pages of 4 or 16 KiB
    import psutil

    return float(psutil.Process().memory_info().rss) / MIB


def give_back_memory() -> None:
    """Returns freed memory to the system, where the C library has a way to; never raises.

    After a dataset build and timed models the allocator holds on to far more than the training needs.
    """
    gc.collect()
    give_back_freed_blocks()


def give_back_freed_blocks() -> None:
    """`give_back_memory` without looking for what nobody uses any more: milliseconds, for the middle of a step."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc
            libc.malloc_trim(0)
        elif platform_name() == "android":
            libc.mallopt(_M_PURGE, 0)


def give_back_large_blocks() -> None:
    """From now on blocks of 1 MiB and more go back to the system as soon as they are freed; never raises.

    glibc else learns to keep them, and what lives between them makes gaps: a quarter of a lean training process. Costs
    the system's time to clear pages. Elsewhere allocators do so anyway.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc
            libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def peak_rss_mb(proc: Path = _PROC) -> float | None:
    """The most memory this process ever held, in MiB; None where the system does not tell. Never raises.

    VmHWM comes first: getrusage keeps, across exec, the peak of the process that started this one.
    """
    try:
        match = re.search(r"^VmHWM:\s+(\d+) kB", (proc / "self/status").read_text(), re.MULTILINE)
        if match:
            return int(match[1]) / 1024
    except OSError:
        pass
    return _peak_of_getrusage()


def _peak_of_getrusage() -> float | None:
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # macOS counts bytes, Linux and Android KiB
