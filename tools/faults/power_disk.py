"""A disk whose power can be cut: an ext4 or xfs image on a loop device, for root on Linux.

The file system is shut down at once, its journal not flushed, so that only what was fsynced or happened to be written
back is there after the next mount. Always unmounted and deleted at the end.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType

__all__ = ["FILE_SYSTEMS", "Disk", "missing"]

_MKFS = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
_SIZE = {"ext4": 96 << 20, "xfs": 320 << 20}  # sparse; xfs refuses less than 300 MB
FILE_SYSTEMS = tuple(_MKFS)
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2
_UNMOUNT_TRIES = 50


@cache
def missing(kind: str) -> str:
    """Why there can be no disk of a kind here; empty where there can."""
    if os.geteuid() != 0:
        return "only root may mount"
    if shutil.which(_MKFS[kind][0]) is None:
        return f"{_MKFS[kind][0]} is not installed"
    try:
        with tempfile.TemporaryDirectory() as folder, Disk(Path(folder), kind) as disk:
            disk.cut()
            disk.restart()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no {kind} on a loop device here ({getattr(error, 'stderr', None) or error})".replace("\n", " ")
    return ""


class Disk:
    """Mounted at ``path`` between enter and exit."""

    def __init__(self, folder: Path, kind: str, options: str = "") -> None:
        self.kind, self._options = kind, options
        self._image, self.path = folder / f"{kind}.img", folder / kind
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Disk:
        self.path.mkdir(exist_ok=True)
        with open(self._image, "wb") as file:
            file.truncate(_SIZE[self.kind])
        _call(*_MKFS[self.kind], str(self._image))
        self._mount()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._unmount()
        except subprocess.CalledProcessError:
            with suppress(subprocess.CalledProcessError):
                _call("umount", "--lazy", str(self.path))
        self._image.unlink(missing_ok=True)
        self.path.rmdir()

    def cut(self) -> None:
        """From this instant nothing more reaches the disk."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def restart(self) -> None:
        """The next boot: the journal is replayed. Nobody may have a file open there."""
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        options = ",".join(word for word in ("loop", self._options) if word)
        _call("mount", "-t", self.kind, "-o", options, str(self._image), str(self.path))

    def _unmount(self) -> None:
        for _ in range(_UNMOUNT_TRIES):
            with suppress(subprocess.CalledProcessError):
                _call("umount", str(self.path))
                return
            time.sleep(0.1)  # a killed process is still letting go of its files
        _call("umount", str(self.path))


def _call(*words: str) -> None:
    subprocess.run(words, capture_output=True, text=True, check=True)
