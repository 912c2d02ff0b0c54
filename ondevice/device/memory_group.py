"""The control group of Linux that counts this process's memory, in MiB: containers and sessions have limits."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["MemoryGroup"]

_PROC, _SYS = Path("/proc"), Path("/sys")
_MIB = 1 << 20
_NO_LIMIT_MB = 2.0**40  # "none" is the largest number of pages


class MemoryGroup:
    """The control group that counts this process's memory. ``limit_mb`` is the tightest limit above it, or None."""

    def __init__(self, path: str, folders: list[Path]) -> None:
        self.path = path
        self._folders = folders
        limits = [limit for folder in folders for limit in (_limit_mb(folder),) if limit is not None]
        self.limit_mb = min(limits, default=None)

    @classmethod
    def of_this_process(cls, proc: Path = _PROC, sysfs: Path = _SYS) -> MemoryGroup | None:
        """None where the system has no groups or hides them, as Android does."""
        try:
            lines = (proc / "self/cgroup").read_text().splitlines()
        except OSError:
            return None
        for number, names, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
            root = sysfs / "fs/cgroup" / ("memory" if names == "memory" else "")
            if names != "memory" and number != "0":
                continue
            # inside a container the path may be the host's, and the group is the root itself
            folder = root / path.lstrip("/") if (root / path.lstrip("/")).is_dir() else root
            folders = [place for place in (folder, *folder.parents) if place.is_relative_to(root)]
            if any(_kills(place) is not None or _limit_mb(place) is not None for place in folders):
                return cls(path, folders)
        return None

    @property
    def room_mb(self) -> float | None:
        """What the tightest of the groups still gives, pages of files that it would drop for it counted; None where
        none has a limit. Raises OSError or ValueError where a group does not tell what it uses."""
        return min((room for folder in self._folders for room in (_room_mb(folder),) if room is not None), default=None)

    def oom_kills(self) -> int | None:
        """Processes of this group that the kernel has killed for want of memory."""
        return _kills(self._folders[0])


def _kills(folder: Path) -> int | None:
    for name in ("memory.events", "memory.oom_control"):  # version 2, version 1
        try:
            found = re.search(r"^oom_kill (\d+)$", (folder / name).read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found[1])
    return None


def _room_mb(folder: Path) -> float | None:
    limit_mb = _limit_mb(folder)
    if limit_mb is None:
        return None
    used = folder / "memory.current"
    used = used if used.exists() else folder / "memory.usage_in_bytes"
    # of all below the group: "total_" in version 1, where the bare name is the group's own
    stat = (folder / "memory.stat").read_text()
    found = re.search(r"^total_inactive_file (\d+)$", stat, re.MULTILINE) or re.search(
        r"^inactive_file (\d+)$", stat, re.MULTILINE
    )
    dropped = int(found[1]) if found else 0
    return max(0.0, limit_mb - (int(used.read_text()) - dropped) / _MIB)


def _limit_mb(folder: Path) -> float | None:
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            limit_mb = int((folder / name).read_text()) / _MIB
        except (OSError, ValueError):  # "max"
            continue
        return limit_mb if limit_mb < _NO_LIMIT_MB else None
    return None
