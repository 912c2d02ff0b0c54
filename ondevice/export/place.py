"""Where an export goes: a fresh folder that takes its place in one instant, or nothing at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ondevice.errors import ResourceError, UsageError
from ondevice.run.files import fsync_folder

__all__ = ["check_place", "folder_in_place"]

_SPARE_BYTES = 16 << 20


def check_place(folder: Path, *, marker: str, overwrite: bool) -> None:
    """Raises UsageError for a folder that exists, with ``overwrite`` for one without ``marker``, which is no export."""
    if not folder.exists():
        return
    if not overwrite:
        raise UsageError(f"{folder}: exists already; choose another folder or add --overwrite.")
    if not (folder / marker).is_file():
        raise UsageError(f"{folder}: not an export (no {marker}), so it is not overwritten; choose another folder.")


@contextmanager
def folder_in_place(folder: Path, *, need_bytes: int) -> Iterator[Path]:
    """A fresh folder beside ``folder`` that takes its place at the end; removed if anything fails before."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder)
    free = shutil.disk_usage(folder.parent).free
    if free < need_bytes + _SPARE_BYTES:
        raise ResourceError(
            f"{folder.parent}: the export needs {need_bytes / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free; "
            "free some space and repeat the command."
        )
    temporary = folder.with_name(f".tmp-{folder.name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        temporary.mkdir()
        yield temporary
        fsync_folder(temporary)
        _replace(temporary, folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"{folder.parent}: the disk is full; free some space and repeat the command."
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, folder: Path) -> None:
    """Renames into place. An earlier export steps aside first: a folder cannot be renamed onto a full one."""
    if not folder.exists():
        temporary.rename(folder)
    else:
        aside = temporary.with_name(f"{temporary.name}-old")
        folder.rename(aside)
        try:
            temporary.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    fsync_folder(folder.parent)


def _remove_abandoned(folder: Path) -> None:
    """Deletes what an export killed half-way left beside the folder: Android kills often, and these are large."""
    ours = re.compile(re.escape(f".tmp-{folder.name}-") + r"(\d+)-[0-9a-f]{8}(-old)?")
    for path in list(folder.parent.iterdir()):
        match = ours.fullmatch(path.name)
        # An "-old" one is the only copy of the earlier export as long as the folder is not there.
        if match and not _alive(int(match[1])) and (folder.exists() or not match[2]):
            shutil.rmtree(path, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
