"""What this machine is: read once by whoever plans, fits or reports. Imports no torch and no package it looks for.

``read_facts()`` never raises; what cannot be read is None, and ``facts.unknown`` says why. Sizes are MiB.
"""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import struct
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.device import cpu, host, packages
from ondevice.device.cpu import Cluster
from ondevice.device.host import Termux
from ondevice.device.memory import MIB, MachineMemory, machine_memory
from ondevice.device.unknown import attempt

__all__ = ["Cluster", "DeviceFacts", "Termux", "read_facts"]

_PROC, _SYS = Path("/proc"), Path("/sys")


@dataclass(frozen=True)
class DeviceFacts:
    """One machine as JSON-able values; None is "not readable here", with the reason in ``unknown`` by field name."""

    platform: str  # android, linux, macos, windows
    arch: str  # uname -m
    python: str
    python_bits: int  # 32 on old phones with a 64-bit kernel
    termux: Termux | None  # None: not in Termux (a fact, not an unknown)
    proot: bool
    cpu_model: str | None
    logical_cores: int | None
    usable_cores: int | None  # those this process may run on
    clusters: tuple[Cluster, ...] | None  # fastest first
    cpu_features: dict[str, bool] | None
    ram_total_mb: float | None
    ram_available_mb: float | None
    swap_total_mb: float | None
    swap_free_mb: float | None
    boottime_clock: bool  # CLOCK_BOOTTIME counts the time asleep, CLOCK_MONOTONIC does not
    boot_id: str | None
    disk_folder: str
    disk_free_mb: float | None
    packages: dict[str, str | None]  # name -> version; None: not installed; "?": installed without a record
    unknown: dict[str, str]

    @property
    def native_termux(self) -> bool:
        """Termux itself, where packages come from ``pkg``; false in a Debian inside proot."""
        return self.platform == "android" and self.termux is not None and not self.proot

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries and lists of the same."""
        return dataclasses.asdict(self)


def read_facts(
    folder: Path | None = None,
    *,
    proc: Path = _PROC,
    sysfs: Path = _SYS,
    env: Mapping[str, str] | None = None,
) -> DeviceFacts:
    """The facts of this machine; ``folder`` (default: the user's home) is where free disk is measured.

    ``read_facts(proc=fake / "proc", sysfs=fake / "sys", env={})`` reads a made-up machine.
    """
    unknown: dict[str, str] = {}
    env = os.environ if env is None else env
    memory = attempt(unknown, "ram_total_mb", lambda: machine_memory(proc))
    if memory is None:
        unknown.update(dict.fromkeys(("ram_available_mb", "swap_total_mb", "swap_free_mb"), unknown["ram_total_mb"]))
    disk = host.existing_ancestor(folder or Path.home())
    return DeviceFacts(
        platform=host.platform_name(),
        arch=platform.machine(),
        python=platform.python_version(),
        python_bits=8 * struct.calcsize("P"),
        termux=host.find_termux(env),
        proot=host.in_proot(env, proc=proc),
        **_cpu_facts(unknown, proc=proc, sysfs=sysfs),
        **_memory_facts(memory),
        boottime_clock=hasattr(time, "CLOCK_BOOTTIME"),
        boot_id=attempt(unknown, "boot_id", lambda: _line(proc / "sys/kernel/random/boot_id")),
        disk_folder=str(disk),
        disk_free_mb=attempt(unknown, "disk_free_mb", lambda: round(shutil.disk_usage(disk).free / MIB, 1)),
        packages={name: _version(unknown, name) for name in (*packages.REQUIRED, *packages.OPTIONAL)},
        unknown=unknown,
    )


def _cpu_facts(unknown: dict[str, str], *, proc: Path, sysfs: Path) -> dict[str, Any]:
    arch, mac = platform.machine(), host.platform_name() == "macos"
    text = "" if mac else attempt(unknown, "cpu_model", lambda: (proc / "cpuinfo").read_text())
    blocks = cpu.parse_cpuinfo(text or "")
    listed = attempt({}, "", lambda: cpu.core_count(blocks))
    facts: dict[str, Any] = {"logical_cores": listed or os.cpu_count(), "usable_cores": _usable_cores()}
    if text is None:
        unknown["cpu_features"] = unknown["cpu_model"]
        facts |= {"cpu_model": None, "cpu_features": None}
    elif mac:
        facts["cpu_model"] = attempt(unknown, "cpu_model", lambda: _sysctl("-n", "machdep.cpu.brand_string"))
        read = attempt(unknown, "cpu_features", lambda: cpu.mac_features(_sysctl("hw.optional"), arch=arch))
        facts["cpu_features"] = read
    else:
        facts["cpu_model"] = attempt(unknown, "cpu_model", lambda: cpu.cpu_model(blocks))
        facts["cpu_features"] = attempt(unknown, "cpu_features", lambda: cpu.cpu_features(blocks, arch=arch))
    facts["clusters"] = attempt(unknown, "clusters", lambda: cpu.clusters(sysfs))
    return facts


def _memory_facts(memory: MachineMemory | None) -> dict[str, Any]:
    names = {
        "ram_total_mb": "total_mb",
        "ram_available_mb": "available_mb",
        "swap_total_mb": "swap_total_mb",
        "swap_free_mb": "swap_free_mb",
    }
    return {fact: round(getattr(memory, name), 1) if memory else None for fact, name in names.items()}


def _version(unknown: dict[str, str], package: str) -> str | None:
    # a torn installation has a record that cannot be parsed
    return attempt(unknown, f"packages.{package}", lambda: packages.version_of(package))


def _usable_cores() -> int | None:
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(affinity(0)) if affinity else os.cpu_count()


def _line(path: Path) -> str:
    return path.read_text().strip()


def _sysctl(*arguments: str) -> str:
    done = subprocess.run(["sysctl", *arguments], capture_output=True, text=True, timeout=5, check=True)
    return done.stdout.strip()
