"""For tools that are started by their name: the project's packages are in its own ``.venv``, where there is one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["use_own_python"]

_OWN = Path(__file__).resolve().parents[1] / ".venv"


def use_own_python() -> None:
    """Starts the program again by the Python of ``.venv``, unless it is there already or there is none."""
    python = _OWN / "bin" / "python"
    if python.exists() and Path(sys.prefix) != _OWN:
        os.execv(python, [str(python), *sys.argv])
