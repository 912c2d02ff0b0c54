"""How fast this folder takes a checkpoint: a few megabytes written, forced to the disk and read back, timed once."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from ondevice.device.host import existing_ancestor
from ondevice.device.memory import MIB
from ondevice.run.files import HashedFile, fsync_folder, sha256_of_open

__all__ = ["measure_save_rate"]

_PROBE_MB = 8


def measure_save_rate(folder: Path) -> float | None:
    """MB (2^20 bytes) a second of write, hash, fsync and read back; None where it cannot be tried. Never raises."""
    try:
        room = Path(tempfile.mkdtemp(prefix=".ondevice-probe-", dir=existing_ancestor(folder)))
    except OSError:
        return None
    try:
        return _PROBE_MB / _timed(room)
    except OSError:
        return None
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _timed(room: Path) -> float:
    block, path = os.urandom(MIB), room / "probe"  # random: some file systems compress
    began = time.perf_counter()
    file = HashedFile(path)
    try:
        for _ in range(_PROBE_MB):
            file.write(block)
    finally:
        file.close()
    fsync_folder(room)
    with open(path, "rb") as written:
        with suppress(AttributeError, OSError):  # macOS has no such call
            os.posix_fadvise(written.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        sha256_of_open(written)
    return time.perf_counter() - began
