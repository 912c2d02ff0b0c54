"""What a folder's filesystem can do: the abilities that a run directory and its checkpoints stand on.

Tries each one in a temporary subfolder and removes it. Hard links are never tried: Android forbids them, nothing needs
them. A phone's shared storage (/sdcard) is found unfit here, before a run is started on it.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.device.host import existing_ancestor
from ondevice.device.memory import MIB
from ondevice.device.unknown import attempt
from ondevice.run.files import fsync_folder

__all__ = ["StorageFacts", "probe_storage"]

_NEEDED = ("writable", "flock", "atomic_replace", "fsync_file", "fsync_folder")


@dataclass(frozen=True)
class StorageFacts:
    """Abilities of one folder: True, False, or None when not tried; ``unknown`` says why of each False and None."""

    folder: str  # the folder asked about
    probed: str  # where it was tried: the folder, or the nearest one above that exists
    filesystem: str | None
    free_mb: float | None
    writable: bool
    flock: bool | None
    atomic_replace: bool | None
    fsync_file: bool | None
    fsync_folder: bool | None
    symlinks: bool | None
    unknown: dict[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """The abilities that a run needs and that are not there."""
        return tuple(name for name in _NEEDED if not getattr(self, name))

    @property
    def fit_for_runs(self) -> bool:
        """Whether a run may live here."""
        return not self.missing

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary of the same."""
        return dataclasses.asdict(self) | {"fit_for_runs": self.fit_for_runs}


def probe_storage(folder: Path, *, proc: Path = Path("/proc")) -> StorageFacts:
    """Tries a folder (or the nearest existing one above it) and leaves nothing behind. Never raises."""
    unknown: dict[str, str] = {}
    probed = existing_ancestor(folder)
    room = attempt(unknown, "writable", lambda: Path(tempfile.mkdtemp(prefix=".ondevice-probe-", dir=probed)))
    try:
        abilities = {name: room and _ability(unknown, name, test, room) for name, test in _TESTS.items()}
    finally:
        if room is not None:
            shutil.rmtree(room, ignore_errors=True)
    return StorageFacts(
        folder=str(folder),
        probed=str(probed),
        filesystem=attempt(unknown, "filesystem", lambda: _filesystem(probed, proc / "self/mounts")),
        free_mb=attempt(unknown, "free_mb", lambda: round(shutil.disk_usage(probed).free / MIB, 1)),
        writable=room is not None,
        unknown=unknown,
        **{name: None if value is None else bool(value) for name, value in abilities.items()},
    )


def _ability(unknown: dict[str, str], name: str, test: Callable[[Path], None], room: Path) -> bool:
    attempt(unknown, name, lambda: test(room))
    return name not in unknown


def _flock(room: Path) -> None:
    """Two descriptors of one file: the second must be refused, or two trainers could share a run."""
    import fcntl  # here: Windows has none, and doctor must get as far as saying so

    path = room / "lock"
    first, second = (os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for _ in range(2))
    try:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        raise OSError("a second lock was granted on a locked file")
    finally:
        os.close(first)
        os.close(second)


def _atomic_replace(room: Path) -> None:
    new, old = room / "new", room / "old"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    os.replace(new, old)
    if old.read_bytes() != b"new" or new.exists():
        raise OSError("a replaced file kept its old content")


def _fsync_file(room: Path) -> None:
    with open(room / "synced", "wb") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())


def _symlinks(room: Path) -> None:
    target, link = room / "target", room / "link"
    target.write_bytes(b"x")
    os.symlink(target, link)
    if link.read_bytes() != b"x":
        raise OSError("a symbolic link leads nowhere")


_TESTS: dict[str, Callable[[Path], None]] = {
    "flock": _flock,
    "atomic_replace": _atomic_replace,
    "fsync_file": _fsync_file,
    "fsync_folder": fsync_folder,
    "symlinks": _symlinks,
}


def _filesystem(folder: Path, mounts: Path) -> str:
    """The type of the deepest mount above a folder. Raises OSError or LookupError where mounts cannot be read."""
    folder = folder.resolve()
    best, kind = -1, ""
    for line in mounts.read_text(errors="replace").splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = Path(_unescape(fields[1]))
        # ">=": of two mounts on one point the later one is what programs see
        if (point == folder or point in folder.parents) and len(point.parts) >= best:
            best, kind = len(point.parts), fields[2]
    if not kind:
        raise LookupError("no mount covers the folder")
    return kind


def _unescape(text: str) -> str:
    r"""Mount points write a blank as ``\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
