"""Disks that are really full: writes that end short and then fail, on a tmpfs of any size or under a file size limit.

Unlike an injected error, a short write leaves bytes behind. Every act of `victim` that writes is tried at several
levels; its folder is judged as after an injected fault.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .rig import Rig, Tally
from .table import Row
from .victim import ACTS

__all__ = ["limited", "mounted", "run"]

WRITING = tuple(
    name for name in ACTS if name not in ("read back", "prune", "answered letter", "rename run", "remove run")
)
_MOST_MB = 32
_FEW = 10
_PAGES = (0, 1, 2, 3, 4, 5, 8, 13, 16, 25, 30, 36, 38, 39, 40, 41, 42, 43, 44, 46, 50)  # a save needs about 40
_BYTES = (0, 1, 7, 60, 100, 500, 640, 999, 1_000, 1_001, 4_096, 20_000, 30_000, 49_999, 50_000, 80_000, 99_999)


def run(*, full: bool, folder: Path, seed: int) -> list[Row]:
    """Every act at every level where ``full``, a few of these otherwise."""
    dice = random.Random(seed)
    tally = limited(Rig(folder / "limit"), _trials(_BYTES, full, dice))
    rows = [
        tally.row(
            "file size limit",
            f"short writes in {len(WRITING)} acts; {tally.told} ended with an error in a sentence, the others fitted",
        )
    ]
    with mounted(folder / "tmpfs") as refused:
        if refused:
            return [*rows, Row("full disk", 0, 0, 0, f"skipped: {refused}")]
        tally = filled(Rig(folder / "tmpfs" / "rig"), _trials(_PAGES, full, dice))
    return [
        *rows,
        tally.row(
            "full disk", f"tmpfs with few pages free; {tally.told} ended with an error in a sentence, the others fitted"
        ),
    ]


def _trials(levels: tuple[int, ...], full: bool, dice: random.Random) -> list[tuple[str, int]]:
    pairs = [(act, level) for act in WRITING for level in levels]
    return pairs if full else dice.sample(pairs, _FEW)


@contextmanager
def mounted(folder: Path) -> Iterator[str]:
    """A tmpfs of its own, gone at the end; gives why there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", f"size={_MOST_MB}m", "tmpfs", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode:
        yield "only root may mount" if os.geteuid() else f"no tmpfs here ({done and done.stderr.strip()})"
        return
    try:
        yield ""
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def limited(rig: Rig, trials: Iterable[tuple[str, int]]) -> Tally:
    """No file may grow beyond so many bytes: a short write, then EFBIG."""
    tally = Tally()
    for act, size in trials:
        new, root = rig.new(act), rig.fresh()
        ended = rig.start(act, root, options=("--fsize", str(size)))
        tally.add(f"{act}: files of at most {size} bytes", rig.verdict(act, root, new, ended), ended.returncode > 0)
    return tally


def filled(rig: Rig, trials: Iterable[tuple[str, int]]) -> Tally:
    """So many pages are free: a short write, then ENOSPC. The room is back for the repetition."""
    tally = Tally()
    for act, free in trials:
        new, root = rig.new(act), rig.fresh()
        with _ballast(root.parent / "ballast", leave=free):
            ended = rig.start(act, root)
        tally.add(f"{act}: {free} pages free", rig.verdict(act, root, new, ended), ended.returncode > 0)
    return tally


@contextmanager
def _ballast(path: Path, *, leave: int) -> Iterator[None]:
    """Takes the room of a file system but for some pages."""
    room = os.statvfs(path.parent)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.posix_fallocate(fd, 0, (room.f_bavail - leave) * room.f_bsize)
        yield
    finally:
        os.close(fd)
        path.unlink()
