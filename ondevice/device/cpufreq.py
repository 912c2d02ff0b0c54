"""How fast the fastest cores run, as a share of the speed they were built for: what a throttled phone loses first."""

from __future__ import annotations

import re
from pathlib import Path

from ondevice.device.answer import Answer

__all__ = ["NAMES", "FastestCores"]

NAMES = ("freq_share",)
_NEARLY = 0.9  # favoured cores of one cluster differ by a few percent


class FastestCores:
    """Cores whose top speed is nearly the highest of the machine.

    The share is of ``cpuinfo_max_freq``. ``scaling_max_freq`` would hide what is looked for, because a hot phone
    lowers it; where only that one is readable, the highest value that it ever had stands for the top speed.
    """

    def __init__(self, sysfs: Path = Path("/sys")) -> None:
        self._folder = sysfs / "devices/system/cpu"
        self._tops: dict[Path, _Top] = {}

    def read(self) -> Answer:
        """The share of the core that runs fastest now, 0..1: idle ones slow down without being throttled.

        Raises OSError where the system hides the cores, LookupError where none tells its speed.
        """
        if not self._tops:
            cores = [core for core in self._folder.iterdir() if re.fullmatch(r"cpu\d+", core.name)]
            self._tops = {core / "cpufreq": _Top(core / "cpufreq") for core in cores}
        tops = {core: top.khz() for core, top in self._tops.items()}
        nearly_khz = _NEARLY * max(tops.values(), default=0)
        shares = [_khz(core / "scaling_cur_freq") / top for core, top in tops.items() if top and top >= nearly_khz]
        if not any(shares):
            raise LookupError("no core tells its frequency")
        return Answer.of("cpufreq", {"freq_share": round(min(max(shares), 1.0), 3)}, {})


class _Top:
    """The top speed of one core."""

    def __init__(self, core: Path) -> None:
        self._core, self._built_khz, self._seen_khz = core, _khz(core / "cpuinfo_max_freq"), 0

    def khz(self) -> int:
        """0 where the core tells neither."""
        if not self._built_khz:
            self._seen_khz = max(self._seen_khz, _khz(self._core / "scaling_max_freq"))
        return self._built_khz or self._seen_khz


def _khz(path: Path) -> int:
    try:
        return max(int(path.read_text()), 0)
    except (OSError, ValueError):  # denied, or "<unknown>" of a core that is off
        return 0
