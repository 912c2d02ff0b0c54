"""The screens by name, each imported when it is first gone to: the first paint waits for one of them only."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tui.screens.base import BaseScreen

__all__ = ["PLACES", "screen_named"]

PLACES = {
    "runs": "RunsScreen",
    "watch": "WatchScreen",
    "checkpoints": "CheckpointsScreen",
    "compare": "CompareScreen",
    "schedule": "ScheduleScreen",
    "device": "DeviceScreen",
    "new": "NewRunScreen",
    "limits": "LimitsScreen",
    "help": "HelpScreen",
}
_MODULES = {"new": "new_run"}


def screen_named(name: str) -> type[BaseScreen]:
    """The class of a screen of `PLACES`."""
    module = importlib.import_module(f"tui.screens.{_MODULES.get(name, name)}")
    screen: type[BaseScreen] = getattr(module, PLACES[name])
    return screen
