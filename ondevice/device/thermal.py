"""Temperatures in degrees Celsius of the processor, the battery and the body, from whichever zones a machine shows.

Zones are chosen by their type, their unit is guessed from the size of the number, and a value outside what the part can
have is no value: disabled zones read 0, -40000 or -127000.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ondevice.device.answer import Answer
from ondevice.device.host import platform_name
from ondevice.device.unknown import attempt

__all__ = ["NAMES", "Thermometers", "celsius"]

NAMES = ("cpu_c", "battery_c", "skin_c")
_LIST_AGAIN_S, _LIST_AGAIN_MOST_S = 60.0, 3600.0

Found = tuple[float, str]  # degrees and the source


@dataclass(frozen=True)
class _Part:
    """Zones of a part by their type: those of the first tier that has a sane value count, the hottest of them."""

    name: str
    words: str
    tiers: tuple[str, ...]
    most_c: int

    def has(self, kind: str, tier: str) -> bool:
        """Whether a zone of this type is the part's, in this tier."""
        if _NEVER.search(kind) or (self.name == "cpu_c" and _NOT_SILICON.search(kind)):
            return False
        return bool(re.search(tier, kind, re.IGNORECASE))


# "soc" alone is the state of charge on Qualcomm's phones; "vbat" and "ibat" are a voltage and a current.
_NEVER = re.compile(r"^soc$|vbat|ibat|bcl|odpm|gpu|charg|usb|modem|limit|trip|step|isolat", re.IGNORECASE)
_NOT_SILICON = re.compile(r"batt|skin|virtual", re.IGNORECASE)
# Names that Qualcomm, MediaTek, Samsung, Google, HiSilicon, Unisoc, Rockchip, Intel and AMD give them.
_CORES = r"cpu|^cluster\d|(big|little)core|x86_pkg_temp|coretemp|k10temp|zenpower|^(big|mid|little)\b|apss|tdie"
_CHIP = r"soc|tsens|acpitz|ap_therm|aoss"
_CPU = _Part("cpu_c", "processor", (_CORES, _CHIP), 150)
_BATTERY = _Part("battery_c", "battery", (r"^(main[-_]?)?batt?(ery)?([-_]?(therm|thm).*)?$|^mtktsbattery",), 90)
_BODY = _Part(
    "skin_c",
    "body",
    (r"skin|^shell|chassis|^tskn", r"quiet[-_]therm|mtktsap|ap_ntc|^board|sys[-_]therm[-_][01]\b", r"xo[-_]therm"),
    90,
)
_PARTS = (_CPU, _BATTERY, _BODY)


def celsius(raw: float, *, most_c: int = 150) -> float | None:
    """A zone's number in degrees, whatever its unit (milli, tenths, whole); None when it is no temperature.

    >>> celsius(45200), celsius(452), celsius(45), celsius(-40000)
    (45.2, 45.2, 45.0, None)
    """
    return _in_unit(raw, _unit(raw, most_c), most_c)


def _unit(raw: float, most_c: int) -> int:
    return 1000 if raw > 10 * most_c else 10 if raw > most_c else 1


def _in_unit(raw: float, unit: int, most_c: int) -> float | None:
    value = round(raw / unit, 1)
    return value if 1 <= value <= most_c else None


class _Zone:
    """One thermal zone. Its unit, once seen, holds: 52 after 280 tenths is 5.2 degrees."""

    def __init__(self, folder: Path, kind: str, most_c: int) -> None:
        self.kind = kind
        self._path, self._most_c, self._unit = folder / "temp", most_c, 1

    def read(self) -> float | None:
        try:
            raw = int(self._path.read_text())
        except (OSError, ValueError):
            return None
        self._unit = max(self._unit, _unit(raw, self._most_c))
        return _in_unit(raw, self._unit, self._most_c)


class Thermometers:
    """Lists the zones once and reads those that count; lists again after a while as long as a part has no value."""

    def __init__(self, sysfs: Path = Path("/sys"), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._clock = sysfs / "class/thermal", clock
        self._zones: dict[str, list[list[_Zone]]] = {}
        self._list_at, self._list_again_s = float("-inf"), _LIST_AGAIN_S
        self._problem: dict[str, str] = {}
        self._psutil = platform_name() != "android"  # there it knows no more than the zones

    def read(self) -> Answer:
        """Degrees now. Never raises."""
        found = {part.name: self._find(part) for part in _PARTS}
        if None in found.values() and self._clock() >= self._list_at:
            self._list()
            found = {part.name: self._find(part) for part in _PARTS}
        known = {name: pair for name, pair in found.items() if pair}
        why = f" ({self._problem['list']})" if self._problem else ""
        return Answer(
            values={name: value for name, (value, _) in known.items()},
            sources={name: source for name, (_, source) in known.items()},
            unknown={p.name: f"no readable thermal zone of the {p.words}{why}" for p in _PARTS if p.name not in known},
        )

    def _find(self, part: _Part) -> Found | None:
        first, *others = self._zones.get(part.name, [[]])
        found = _hottest((zone.read(), f"zone {zone.kind}") for zone in first)
        if found is None and part is _CPU and self._psutil:
            found = attempt({}, "", _from_psutil)
        for tier in others:
            found = found or _hottest((zone.read(), f"zone {zone.kind}") for zone in tier)
        return found

    def _list(self) -> None:
        self._list_at = self._clock() + self._list_again_s
        self._list_again_s = min(2 * self._list_again_s, _LIST_AGAIN_MOST_S)
        folders = attempt(self._problem, "list", lambda: sorted(self._folder.iterdir())) or []
        kinds = [(zone, _kind(zone)) for zone in folders if zone.name.startswith("thermal_zone")]
        for part in _PARTS:
            self._zones[part.name] = [
                [_Zone(zone, kind, part.most_c) for zone, kind in kinds if part.has(kind, tier)] for tier in part.tiers
            ]


def _kind(zone: Path) -> str:
    return attempt({}, "", lambda: (zone / "type").read_text().strip()) or ""  # denied one by one on some phones


def _hottest(readings: Iterable[tuple[float | None, str]]) -> Found | None:
    return max(((value, source) for value, source in readings if value is not None), default=None)


def _from_psutil() -> Found | None:
    import psutil

    sensors = psutil.sensors_temperatures()  # AttributeError on macOS
    return _hottest(
        (celsius(entry.current), f"psutil {name}")
        for name, entries in sensors.items()
        if re.search(_CORES, name, re.IGNORECASE)
        for entry in entries
    )
