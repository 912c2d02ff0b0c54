"""Unknown is a value: try to read something, and keep the reason when it cannot be read.

Every reader of this package goes through `attempt`, so a phone that denies a file looks the same as one without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

__all__ = ["attempt", "why"]

T = TypeVar("T")

_KNOWN: tuple[tuple[type[BaseException], str], ...] = (
    (PermissionError, "permission denied"),
    (FileNotFoundError, "not there"),
    (ModuleNotFoundError, "package not installed"),
)


def why(error: BaseException) -> str:
    """A short reason for a person: ``"permission denied: /proc/stat"``."""
    words = next((text for kind, text in _KNOWN if isinstance(error, kind)), "")
    name = getattr(error, "filename", None) or getattr(error, "name", None)
    if words:
        return f"{words}: {name}" if name else words
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def attempt(unknown: dict[str, str], name: str, call: Callable[[], T]) -> T | None:
    """The value of ``call()``; or None, with the reason in ``unknown[name]``. Success clears an older reason."""
    try:
        value = call()
    except Exception as error:  # psutil, sysfs drivers and vendors raise what they like; none of it may stop a trainer
        unknown[name] = why(error)
        return None
    unknown.pop(name, None)
    return value
