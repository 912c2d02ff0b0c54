"""Made-up machines: trees like /proc and /sys, and an interpreter that believes it runs on Android."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

GALAXY_CPUINFO = "".join(
    f"processor\t: {core}\nBogoMIPS\t: 38.40\nFeatures\t: fp asimd aes crc32 atomics asimdhp asimddp i8mm bf16\n"
    f"CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {'0xd46' if core < 6 else '0xd4e'}\n\n"
    for core in range(8)
)
MEMINFO = """MemTotal:       {total} kB
MemFree:          120000 kB
MemAvailable:    {available} kB
Cached:           900000 kB
SwapTotal:       4194304 kB
SwapFree:        2097152 kB
"""


@dataclass
class Tree:
    """A fake root with proc and sys; `write` fills it."""

    root: Path

    @property
    def proc(self) -> Path:
        return self.root / "proc"

    @property
    def sysfs(self) -> Path:
        return self.root / "sys"

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def supply(self, name: str, **files: object) -> None:
        """One folder of power_supply; ``type`` is Battery unless given."""
        for file, value in ({"type": "Battery"} | files).items():
            self.write(f"sys/class/power_supply/{name}/{file}", f"{value}\n")

    def core(self, number: int, **khz: int) -> None:
        for file, value in khz.items():
            self.write(f"sys/devices/system/cpu/cpu{number}/cpufreq/{file}", f"{value}\n")

    def zone(self, number: int, kind: str, temp: str) -> None:
        self.write(f"sys/class/thermal/thermal_zone{number}/type", kind + "\n")
        self.write(f"sys/class/thermal/thermal_zone{number}/temp", temp + "\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty machine: nothing is readable."""
    made = Tree(tmp_path / "machine")
    made.proc.mkdir(parents=True)
    made.sysfs.mkdir()
    return made


@pytest.fixture
def galaxy(tree: Tree) -> Tree:
    """A Galaxy with Termux: two kinds of cores, twelve GB, thermal zones that an app may read."""
    tree.write("proc/cpuinfo", GALAXY_CPUINFO)
    tree.write("proc/meminfo", MEMINFO.format(total=11534336, available=4194304))
    tree.write("proc/sys/kernel/random/boot_id", "8a7d3c1e-0000-4000-8000-000000000001\n")
    for core in range(8):
        speed = 3532800 if core < 6 else 4473600
        tree.write(f"sys/devices/system/cpu/cpu{core}/cpufreq/cpuinfo_max_freq", f"{speed}\n")
    tree.write("sys/devices/system/cpu/cpufreq/boost", "0\n")
    for number, (kind, temp) in enumerate(
        [
            ("cpu-0-0-0", "45200"),
            ("cpu-1-1-0", "61700"),
            ("gpuss-0", "88000"),
            ("battery", "351"),
            ("cpu-off", "-40000"),
        ]
    ):
        tree.zone(number, kind, temp)
    return tree


@pytest.fixture
def android(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter of Termux: its platform name, and the attributes that its os module lacks."""
    monkeypatch.setattr(sys, "platform", "android")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    for name in ("link", "getloadavg", "copy_file_range", "getxattr"):
        monkeypatch.delattr(os, name, raising=False)


class FakeCommands:
    """Programs of a folder that is first on PATH. Each notes its process group before it does anything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._groups = folder / "groups"

    @property
    def env(self) -> dict[str, str]:
        return os.environ | {"PATH": f"{self.folder}:{os.environ['PATH']}"}

    def make(self, name: str, script: str) -> str:
        """A shell script; gives its path."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\nread -r stat < /proc/$$/stat\nset -- $stat\necho $5 >> {self._groups}\n{script}\n")
        path.chmod(0o755)
        return str(path)

    def started(self) -> list[int]:
        """Process groups of those that were started, in order."""
        return [int(line) for line in self._groups.read_text().split()] if self._groups.exists() else []

    def left(self) -> list[str]:
        """Command lines of processes that still live in a group of one of them."""
        groups, lines = set(self.started()), []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
                if int(group) in groups and state != "Z":
                    lines.append((stat.parent / "cmdline").read_text().replace("\0", " "))
            except (OSError, ValueError):
                continue
        return lines


@pytest.fixture
def commands(tmp_path: Path) -> FakeCommands:
    """Where a test puts its own ``termux-*``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    return FakeCommands(folder)


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """``denied(folder)``: everything below it answers "permission denied", as Android's policy does (even to root)."""

    def deny(folder: Path) -> None:
        for name in ("read_text", "read_bytes", "iterdir"):
            real = getattr(Path, name)

            def guarded(path: Path, *args: object, _real: Callable[..., object] = real, **kwargs: object) -> object:
                if path.is_relative_to(folder):
                    raise PermissionError(13, "Permission denied", str(path))
                return _real(path, *args, **kwargs)

            monkeypatch.setattr(Path, name, guarded)

    return deny
