"""What helps a run to live on under Android: Termux's commands, and the scripts that bring runs back.

Looks at files only; whether the applications behind the commands answer is told by those who call them.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.device.host import is_scheduled, on_android

__all__ = ["Upkeep", "read_upkeep"]

_BOOT = Path(".termux/boot/ondevice-resume")  # as `termux/install.sh` names it


@dataclass(frozen=True, kw_only=True)
class Upkeep:
    """``scheduled``: Android starts the watchdog about every 15 minutes. ``boot``: the boot script is in its place."""

    wake_lock: bool
    notification: bool
    scheduled: bool
    boot: bool

    def to_json(self) -> dict[str, Any]:
        """A plain dictionary."""
        return dataclasses.asdict(self)


def read_upkeep(env: Mapping[str, str]) -> Upkeep | None:
    """What there is on a phone; None elsewhere. Never raises."""
    if not on_android(env):
        return None
    path = env.get("PATH", "")
    return Upkeep(
        wake_lock=shutil.which("termux-wake-lock", path=path) is not None,
        notification=shutil.which("termux-notification", path=path) is not None,
        scheduled=is_scheduled(env),
        boot=(Path(env.get("HOME") or "/") / _BOOT).is_file(),
    )
