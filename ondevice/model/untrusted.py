"""What the readers of weights that others made share: how such a file is opened, named and weighed. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from ondevice.errors import CheckpointError, ResourceError
from ondevice.run.files import open_regular

__all__ = ["opened", "read_object", "refuse_too_large", "short"]

_MIB = 1 << 20


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, never through a symbolic link. Raises CheckpointError, for failures in the block too."""
    try:
        with open_regular(path) as file:
            yield file
    except OSError as error:
        if path.is_symlink():
            raise CheckpointError(f"{path}: is a symbolic link; name the file it leads to, or copy it here.") from error
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}).") from error


def read_object(path: Path, *, at_most: int, refusal: str) -> dict[str, Any]:
    """A JSON object of at most ``at_most`` bytes. Raises CheckpointError, with ``refusal`` where it is none."""
    with opened(path) as file:
        data = file.read(at_most + 1)
    try:
        raw = json.loads(data) if len(data) <= at_most else None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({type(error).__name__}).") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: {refusal}")
    return raw


def short(name: Any) -> str:
    """A name out of a file as it may be shown: quoted, on one line, not long."""
    text = repr(name[:200] if isinstance(name, str) else name)
    return text if len(text) <= 100 else f"{text[:80]}...'"


def refuse_too_large(needed: int, available_mb: float | None, *, where: str) -> None:
    """Raises ResourceError when weights of ``needed`` bytes exceed the memory that is free, where that is known."""
    if available_mb is not None and needed > available_mb * _MIB:
        raise ResourceError(
            f"{where}: its weights take {needed / _MIB:,.0f} MiB and {available_mb:,.0f} MiB of memory are free; "
            "close other programs, or use a smaller model."
        )
