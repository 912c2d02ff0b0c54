"""What a simulated phone is made of: a profile, read from ``profiles/<name>.toml`` or from a file of the same form.

``load_profile("galaxy-s25plus").without_certainty(0.3, seed=1)``. It knows no time and no temperature of the moment.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ondevice.errors import UsageError

__all__ = ["NODES", "Profile", "known_profiles", "load_profile"]

NODES = ("cpu_big", "cpu_little", "package", "chassis", "battery")
FOLDER = Path(__file__).parent / "profiles"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Watts, kelvin, joules and seconds. Dictionaries are by node, or by ``"node-node"`` for a conductance."""

    name: str
    about: str
    capacity_j_k: dict[str, float]
    conductance_w_k: dict[str, float]
    to_ambient_w_k: dict[str, float]
    big_cores: int
    little_cores: int
    big_core_w: float  # a training thread at full frequency
    little_core_w: float
    little_rate: float  # work of a little core, a big one does 1
    contention: float  # what each further thread costs the others
    threads: int  # that training uses unless told otherwise; speed is measured against these
    power_exponent: float  # power falls with the frequency to this power
    idle_w: float
    screen_w: float
    throttle_cpu_c: float  # hottest core above which the kernel lowers the frequency
    throttle_cpu_per_c: float  # share of the power taken away for each degree above
    throttle_battery_c: float
    half_power_battery_c: float
    throttle_floor: float  # least share of the power
    severe_battery_c: float  # thermal headroom 1.0
    battery_wh: float
    battery_heat: float  # share of the power drawn that warms the battery itself
    charge_w: float
    charge_heat: float  # share of the charging power that warms the battery

    def without_certainty(self, share: float, *, seed: int) -> Profile:
        """The same phone with every thermal parameter wrong by up to ``share`` (0.3: a factor of 0.7 to 1.3)."""
        dice = random.Random(seed)

        def wrong(value: float) -> float:
            return value * dice.uniform(1 - share, 1 + share)

        tables = ("capacity_j_k", "conductance_w_k", "to_ambient_w_k")
        plain = ("big_core_w", "little_core_w", "idle_w", "screen_w", "battery_heat", "charge_heat")
        changed: dict[str, Any] = {name: {k: wrong(v) for k, v in getattr(self, name).items()} for name in tables}
        changed |= {name: wrong(getattr(self, name)) for name in plain}
        return replace(self, **changed)

    def core_heat_w(self, threads: int, *, background: bool = False) -> tuple[float, float]:
        """Heat of the big and of the little cores while ``threads`` threads work at full frequency, in watts."""
        big = 0 if background else min(threads, self.big_cores)
        little = min(max(threads, 0) - big, self.little_cores)
        return big * self.big_core_w, little * self.little_core_w

    def rate(self, threads: int, *, background: bool = False) -> float:
        """Work of ``threads`` threads at full frequency against `threads` in the foreground. Threads in step wait
        for the slowest core."""
        return self._rate(threads, background) / self._rate(self.threads, False)

    def _rate(self, threads: int, background: bool) -> float:
        big = 0 if background else self.big_cores
        used = min(threads, big + self.little_cores)
        if used <= 0:
            return 0.0
        slowest = 1.0 if used <= big else self.little_rate
        return used * slowest / (1 + self.contention * (used - 1) ** 2) * used / threads


def known_profiles() -> list[str]:
    """Names that `load_profile` takes."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load_profile(name: str) -> Profile:
    """The profile of that name, or of that ``.toml`` file. Raises UsageError for an unknown or a bad one."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(known_profiles())
        raise UsageError(f"There is no device profile {name!r}; choose one of {known}, or give a .toml file.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"The device profile {path} cannot be read: {error}.") from None
    return _checked(values, path)


def _checked(values: dict[str, Any], path: Path) -> Profile:
    wanted = {field.name: str(field.type) for field in fields(Profile)}
    odd = sorted(wanted.keys() ^ values.keys())
    if odd:
        word = "lacks" if odd[0] in wanted else "has the unknown key"
        raise UsageError(f"The device profile {path} {word} {odd[0]!r}; compare it with {FOLDER / 'midrange.toml'}.")
    bad = next((name for name, kind in wanted.items() if not _fits(values[name], kind)), None)
    if bad is None and values["capacity_j_k"].keys() != set(NODES):
        bad = "capacity_j_k"
    if bad:
        raise UsageError(f"The device profile {path} has a bad value for {bad!r}; compare it with its neighbours.")
    return Profile(**values)


def _fits(value: Any, kind: str) -> bool:
    if kind == "str":
        return isinstance(value, str)
    if kind.startswith("dict"):
        return isinstance(value, dict) and all(
            _fits(v, "float") and v > 0 and set(k.split("-")) <= set(NODES) for k, v in value.items()
        )
    number = isinstance(value, int if kind == "int" else int | float) and not isinstance(value, bool)
    return number and 0 <= value < 1e9
