"""Memory and disk that run out for real: a cgroup with a limit, a small tmpfs. Both need root on Linux."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NoRoot", "SmallDisk", "memory_cgroup", "oom_kills", "small_disk"]

_CGROUPS = Path("/sys/fs/cgroup/memory")  # version 1
_UNIFIED = Path("/sys/fs/cgroup")  # version 2
# What each version calls its limits, and the share each gets: version 1 counts memory and swap together.
_OLD_LIMITS = (("memory.limit_in_bytes", 1), ("memory.memsw.limit_in_bytes", 1))
_NEW_LIMITS = (("memory.max", 1), ("memory.swap.max", 0))


class NoRoot(Exception):
    """This machine does not let us; the sentence says what."""


@contextmanager
def memory_cgroup(*, limit_mb: int) -> Iterator[Path]:
    """A cgroup whose members are killed beyond the limit, swap included. Raises NoRoot where there can be none."""
    above, limits = (_CGROUPS, _OLD_LIMITS) if _CGROUPS.is_dir() else (_UNIFIED, _NEW_LIMITS)
    cgroup = above / f"ondevice-faults-{os.getpid()}"
    try:
        cgroup.mkdir()
    except OSError as error:
        raise NoRoot(f"no memory cgroup can be made below {above} ({error.strerror})") from error
    try:
        if not (cgroup / limits[0][0]).exists():
            raise NoRoot(f"{above} has no memory controller for new groups")
        for name, share in limits:
            if (cgroup / name).exists():  # a kernel without swap accounting has no limit of it
                (cgroup / name).write_text(str((limit_mb << 20) * share))
        yield cgroup
    finally:
        cgroup.rmdir()


def oom_kills(cgroup: Path) -> int:
    """How many processes of the cgroup the kernel ended for want of memory."""
    told = next(cgroup / name for name in ("memory.oom_control", "memory.events") if (cgroup / name).exists())
    words = dict(line.split() for line in told.read_text().splitlines())
    return int(words.get("oom_kill", 0))


@dataclass(frozen=True)
class SmallDisk:
    """A file system of a few megabytes."""

    folder: Path

    def fill(self, *, but_mb: float) -> None:
        """Takes all room but so much."""
        free = shutil.disk_usage(self.folder).free
        with open(self.folder / "ballast", "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, int(free - but_mb * 2**20)))

    def clear(self) -> None:
        (self.folder / "ballast").unlink()


@contextmanager
def small_disk(folder: Path, *, size_mb: int) -> Iterator[SmallDisk]:
    """A tmpfs of that size, empty. Raises NoRoot where none may be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=700", "ondevice-faults", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NoRoot("there is no mount command") from error
    if done.returncode != 0:
        raise NoRoot(f"no tmpfs can be mounted ({done.stderr.strip()})")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
