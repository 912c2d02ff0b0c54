"""The processor's temperature in degrees Celsius, from whichever thermal zones or drivers a machine shows.

Zones are chosen by their type, their unit is guessed from the size of the number, and a value outside 1..150 C is no
value: disabled zones read 0 or -40000.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

__all__ = ["CpuThermometer", "celsius", "find_zones"]

# The cores themselves, by the names that Qualcomm, MediaTek, Samsung, Google, Intel and AMD give them.
_CORES = re.compile(r"cpu|x86_pkg_temp|coretemp|k10temp|zenpower|^(big|mid|little)\b|apss|tdie", re.IGNORECASE)
# The chip around them: second choice.
_CHIP = re.compile(r"soc|tsens|acpitz|ap_therm|aoss", re.IGNORECASE)
_NOT_SILICON = re.compile(r"batt|gpu|skin|charg|usb|modem|limit|trip|step|virtual|isolat", re.IGNORECASE)
_SEARCH_AGAIN_S = 60.0


def celsius(raw: float) -> float | None:
    """A zone's number in degrees, whatever its unit (milli, tenths, whole); None when it is no temperature.

    >>> celsius(45200), celsius(452), celsius(45), celsius(-40000)
    (45.2, 45.2, 45.0, None)
    """
    value = raw / 1000 if raw > 1500 else raw / 10 if raw > 150 else float(raw)
    return round(value, 1) if 1 <= value <= 150 else None


def find_zones(sysfs: Path, pattern: re.Pattern[str]) -> tuple[Path, ...]:
    """The ``temp`` files of zones whose type matches and that give a sane value now."""
    zones = sorted((sysfs / "class/thermal").glob("thermal_zone*"))
    files = (zone / "temp" for zone in zones if _zone_matches(zone, pattern))
    return tuple(path for path in files if _read(path) is not None)


def _zone_matches(zone: Path, pattern: re.Pattern[str]) -> bool:
    try:
        kind = (zone / "type").read_text().strip()
    except OSError:
        return False  # denied one by one on some phones
    return bool(pattern.search(kind)) and not _NOT_SILICON.search(kind)


def _read(path: Path) -> float | None:
    try:
        return celsius(int(path.read_text()))
    except (OSError, ValueError):
        return None


def _hottest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _from_psutil() -> float | None:
    import psutil

    sensors = psutil.sensors_temperatures()  # AttributeError on macOS
    return _hottest(
        celsius(entry.current) for name, entries in sensors.items() if _CORES.search(name) for entry in entries
    )


class CpuThermometer:
    """Finds a source once, then reads it; searches again a minute later while there is none.

    ``CpuThermometer().read()`` -> 47.5. Raises LookupError or what a vanished source raises: callers `attempt` it.
    """

    def __init__(self, sysfs: Path = Path("/sys"), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._sysfs, self._clock = sysfs, clock
        self._source: Callable[[], float | None] | None = None
        self._next_search = float("-inf")

    def read(self) -> float:
        """Degrees Celsius of the hottest core zone now."""
        if self._source is None and self._clock() >= self._next_search:
            self._next_search = self._clock() + _SEARCH_AGAIN_S
            self._source = self._search()
        value = self._source() if self._source else None
        if value is None:
            self._source = None
            raise LookupError("no readable thermal zone of the processor")
        return value

    def _search(self) -> Callable[[], float | None] | None:
        candidates = (lambda: self._zones(_CORES), lambda: _from_psutil, lambda: self._zones(_CHIP))
        for candidate in candidates:
            source = candidate()
            try:
                if source() is not None:
                    return source
            except Exception:  # a source that fails in any way is not the one
                continue
        return None

    def _zones(self, pattern: re.Pattern[str]) -> Callable[[], float | None]:
        try:
            zones = find_zones(self._sysfs, pattern)
        except OSError:
            zones = ()
        return lambda: _hottest(_read(path) for path in zones)
