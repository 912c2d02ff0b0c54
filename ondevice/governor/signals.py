"""The temperatures that a device may show: where a reading has them, what such bodies are like, and their limits.

In order of trust. What is learned of them from samples is the business of `ondevice.governor.heat`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ondevice.device.readings import Reading
from ondevice.governor.node import Traits
from ondevice.governor.presets import HEADROOM_C, Policy

__all__ = [
    "BATTERY",
    "FELT_THROUGH",
    "FINER",
    "HARD_OVER_C",
    "NAMES",
    "SIGNALS",
    "Signal",
    "age_s",
    "feels",
    "is_known",
]

HARD_OVER_C = 1.0  # over the warmest battery: stop, whatever the controller thinks


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One kind of temperature: where a `Reading` has it, how it behaves, and how far over its limit work stops."""

    name: str
    words: str
    bodies: tuple[Traits, ...]  # what it may be like; the samples tell which it is
    stale_s: float
    every_s: float  # samples closer together tell nothing new
    hard_over_c: float
    scale_c: float = 1.0
    peaks: bool = False  # counts only while working, and then the highest of a while
    much: float = 0.1  # of the room under its limit: what a piece may warm it and still be steered by its mean

    def value(self, reading: Reading) -> float | None:
        """Degrees Celsius; of headroom, degrees on its own scale. None where it is unknown or stale."""
        found = getattr(reading, self.name)
        if found is None or age_s(reading, self.name) > self.stale_s:
            return None
        return float(found) * self.scale_c

    def limit(self, policy: Policy) -> float:
        """In the same unit as `value`."""
        return float(getattr(policy, f"max_{self.name}")) * self.scale_c


def age_s(reading: Reading, name: str) -> float:
    """How old a value was when it was read, in seconds."""
    return max(0.0, reading.ages_s.get(name, 0.0))


_SMALL = Traits(
    tau_s=250.0,
    lag_s=11.0,
    lag_sd=3.5,
    warming=0.12,
    warming_sd=0.06,
    idle_sd=3.0,
    idle_drift=0.015,
    drift=0.01,
    noise_c=0.12,
    spare_c=0.08,
)
_MIDDLE = replace(_SMALL, tau_s=450.0, lag_s=40.0, lag_sd=10.0, warming=0.05, warming_sd=0.03, idle_drift=0.01)
_LARGE = replace(_SMALL, tau_s=850.0, lag_s=110.0, lag_sd=28.0, warming=0.025, warming_sd=0.015, idle_drift=0.0075)
_SKIN = Traits(  # what shows at once fades at once; the rest cools with the whole phone
    tau_s=250.0,
    lag_s=6.0,
    lag_sd=0.0,
    warming=0.25,
    warming_sd=0.15,
    idle_sd=5.0,
    idle_drift=0.12,
    drift=0.05,
    noise_c=0.35,
    spare_c=0.18,
)
_CPU = Traits(
    tau_s=15.0,
    lag_s=1.0,
    lag_sd=0.0,
    warming=2.0,
    warming_sd=1.0,
    idle_sd=15.0,
    idle_drift=0.4,
    drift=0.2,
    noise_c=0.5,
    spare_c=0.3,
)
_BODIES = (_SMALL, _MIDDLE, _LARGE)
# Of a fine scale every error shows at the next sample, and so small ones that whole degrees hide for minutes.
_FINE_BODIES = tuple(replace(body, drift=0.005, sure=1.1) for body in (replace(_SMALL, lag_s=14.0), *_BODIES[1:]))
SIGNALS = (
    Signal(name="battery_c", words="battery", bodies=_BODIES, stale_s=90.0, every_s=0.5, hard_over_c=HARD_OVER_C),
    Signal(
        name="headroom",
        words="Android's heat",
        bodies=_FINE_BODIES,
        stale_s=45.0,
        every_s=5.0,
        hard_over_c=2.0,
        scale_c=HEADROOM_C,
    ),
    Signal(  # its swing fades as fast as it comes, and peaks of one piece are foretold badly
        name="skin_c", words="body", bodies=(_SKIN,), stale_s=20.0, every_s=5.0, hard_over_c=2.0, much=0.2
    ),
    Signal(name="cpu_c", words="processor", bodies=(_CPU,), stale_s=10.0, every_s=10.0, hard_over_c=8.0, peaks=True),
)
BATTERY, FINER = SIGNALS[0], SIGNALS[1]
FELT_THROUGH = ("skin_c", "cpu_c")
NAMES = ("thermal_status", *(signal.name for signal in SIGNALS))


def is_known(reading: Reading) -> bool:
    """Whether any temperature can be read."""
    return any(signal.value(reading) is not None for signal in SIGNALS)


def feels(reading: Reading) -> bool:
    """Whether a phone's battery can only be felt through its processor or its body."""
    return is_known(reading) and BATTERY.value(reading) is None and FINER.value(reading) is None
