"""Which senses the device lost and found again, in sentences: a governor that goes blind does not do so silently."""

from __future__ import annotations

from collections.abc import Iterator

from ondevice.device.readings import Reading

__all__ = ["Senses"]

LOST_AFTER = 2  # readings without it; one may be a command that was late
MOST_TOLD = 6  # losses of one sensor in a launch, for a sensor that comes and goes
_WORDS = {
    "battery_c": "The temperature of the battery",
    "skin_c": "The temperature of the body",
    "cpu_c": "The temperature of the processor",
    "headroom": "Android's thermal headroom",
    "thermal_status": "Android's thermal status",
    "battery_percent": "The charge of the battery",
    "plugged": "Whether the charger is in",
    "available_mb": "The free memory",
}


class Senses:
    """Fed with a reading now and then."""

    def __init__(self) -> None:
        self._missing: dict[str, int] = {}  # readings without it, of those that were there once
        self._told: dict[str, int] = {}

    def changes(self, reading: Reading) -> Iterator[str]:
        """What was lost or is back since the last reading."""
        for name, words in _WORDS.items():
            known = getattr(reading, name) is not None
            missing = self._missing.get(name)
            if known:
                self._missing[name] = 0
                if missing is not None and missing >= LOST_AFTER and self._told[name] <= MOST_TOLD:
                    yield f"{words} can be read again."
            elif missing is not None:
                self._missing[name] = missing + 1
                if missing + 1 == LOST_AFTER:
                    self._told[name] = self._told.get(name, 0) + 1
                    if self._told[name] <= MOST_TOLD:
                        why = reading.unknown.get(name)
                        yield f"{words} can no longer be read{f' ({why})' if why else ''}; what is left must do."
