"""The folder of a dataset as a build finds it: whether someone reads from it, and what a killed build left.

Knows no text and no manifest.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ondevice.data.dataset import USE_LOCK

__all__ = ["remove_leftovers", "unused_folder"]


@contextmanager
def unused_folder(folder: Path) -> Iterator[bool]:
    """Whether no `Dataset` of this folder is open anywhere; none can be opened with the old manifest meanwhile."""
    descriptor = os.open(folder / USE_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Deletes what a killed build had begun: names that start with ``.tmp-`` are never read."""
    places = (".tmp-*", "scan/.tmp-*", "chunks/*/.tmp-*", "tokenizer-*/.tmp-*")
    for path in [path for place in places for path in folder.glob(place)]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
