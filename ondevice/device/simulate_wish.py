"""The words that name a simulated device: ``sim:galaxy-s25plus,ambient=25..36@600,plugged=no,lose=battery_c@600``.

Read strictly: a word that means nothing is refused in one sentence. Makes the phone; knows no clock and no trainer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ondevice.device.simulate import Ambient, Event, EventKind, SimulatedPhone
from ondevice.device.simulate_profile import Profile, known_profiles, load_profile
from ondevice.device.simulate_replay import ReplayPhone
from ondevice.device.simulate_sensors import SENSORS
from ondevice.errors import UsageError, nearest

__all__ = ["FASTEST", "DeviceWish", "parse_device"]

FASTEST = 1000.0
HANDHELD_WH = 45.0  # larger batteries are in laptops
_KINDS: tuple[EventKind, ...] = tuple(
    kind for kind in get_args(EventKind) if kind != "kill"
)  # whoever wants that sends the signal
_SENSOR_EVENTS = ("lose", "find")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
_RAMP = re.compile(r"(-?[\d.]+)\.\.(-?[\d.]+)@([\d.]+)")


@dataclass(frozen=True, kw_only=True)
class DeviceWish:
    """Degrees Celsius and seconds. ``ambient`` goes from the first to the second within the third.

    ``start_minute``: the time of day at which it begins, None: now. ``piece_s``: what a micro-batch takes there while
    it is cool, None: as long as here, in its time. ``threads``: that work there, None: those of the fit.
    """

    text: str
    speed: float = 1.0  # its seconds in one of the wall's
    profile: Profile | None = None
    recording: Path | None = None
    ambient: tuple[float, float, float] = (25.0, 25.0, 1.0)
    plugged: bool = True
    percent: float = 70.0
    seed: int = 0
    start_minute: int | None = None
    piece_s: float | None = None
    threads: int | None = None
    events: tuple[Event, ...] = ()

    @property
    def name(self) -> str:
        """For a person: the profile, or the file of the recording."""
        return self.profile.name if self.profile else str(self.recording and self.recording.name)

    @property
    def handheld(self) -> bool:
        """Recordings are of phones."""
        return self.profile is None or self.profile.battery_wh < HANDHELD_WH

    def phone(
        self,
        *,
        start_t: float,
        at_s: float = 0.0,
        start_c: dict[str, float] | None = None,
        percent: float | None = None,
    ) -> SimulatedPhone | ReplayPhone:
        """The phone ``at_s`` seconds after the beginning at ``start_t`` (unix seconds); its own seconds count from
        there, and what has happened until then has happened. Raises UsageError for a bad recording."""
        if self.profile is None:
            replay = ReplayPhone(self.recording or Path(), start_t=start_t)
            replay.advance(at_s, duty=0.0)
            return replay
        phone = SimulatedPhone(
            self.profile,
            ambient_c=self._ambient_from(at_s),
            plugged=self._plugged_at(at_s),
            battery_percent=self.percent if percent is None else percent,
            seed=self.seed + round(at_s),
            events=[Event(e.at_s - at_s, e.kind, e.sensor) for e in self.events if e.at_s > at_s],
            start_c=start_c,
            start_t=start_t + at_s,
        )
        for event in sorted(e for e in self.events if e.at_s <= at_s):
            phone.happen(event.kind, event.sensor)
        return phone

    def _plugged_at(self, at_s: float) -> bool:
        """Polls of the battery are rare: the first one must find what is."""
        last = [e.kind for e in self.events if e.at_s <= at_s and e.kind in ("plug", "unplug")]
        return last[-1] == "plug" if last else self.plugged

    def _ambient_from(self, at_s: float) -> Ambient:
        first, last, over_s = self.ambient
        if first == last:
            return first
        return lambda s: first + (last - first) * min(1.0, (s + at_s) / over_s)


def parse_device(text: str, *, speed: float = 1.0) -> DeviceWish:
    """The wish in the words of ``--device`` and ``--speed``. Raises UsageError."""
    if not 0 < speed <= FASTEST:
        raise UsageError(f"--speed {speed:g} is not above 0 and at most {FASTEST:g}.")
    kind, _, rest = text.partition(":")
    name, *words = [word.strip() for word in rest.split(",")]
    if kind == "sim":
        if name not in known_profiles() and not name.endswith(".toml"):
            profiles = ", ".join(known_profiles())
            raise UsageError(f"There is no simulated device {name!r}{nearest(name, known_profiles())}: {profiles}.")
        return _with_words(words, _OPTIONS, text=text, speed=speed, profile=load_profile(name))
    if kind == "replay":
        if not name:
            raise UsageError("A recording is named like replay:trace.csv.")
        path = Path(name).expanduser()
        ReplayPhone(path)
        return _with_words(words, _REPLAY_OPTIONS, text=text, speed=speed, recording=path)
    raise UsageError(f"The device {text!r} is neither sim:NAME nor replay:FILE.csv, such as sim:galaxy-s25plus.")


Option = Callable[[str, str], Any]


def _with_words(words: Iterable[str], options: dict[str, tuple[str, Option]], **given: Any) -> DeviceWish:
    found: dict[str, Any] = {}
    events: list[Event] = []
    for word in words:
        if "profile" in given and (event := _event(word)) is not None:
            events.append(event)
            continue
        key, sign, value = word.partition("=")
        if key not in options or not sign:
            known = [*options, *(_KINDS if "profile" in given else ())]
            raise UsageError(f"{word!r} in --device is unknown{nearest(key, known)}; known are {', '.join(known)}.")
        name, read = options[key]
        if name in found:
            raise UsageError(f"{key} is written twice in --device.")
        found[name] = read(value, word)
    return DeviceWish(events=tuple(sorted(events)), **given, **found)


def _event(word: str) -> Event | None:
    """``unplug@900`` or ``lose=battery_c@600``; None where it is something else."""
    what, sign, at = word.partition("@")
    name, has_sensor, sensor = what.partition("=")
    kind = next((kind for kind in _KINDS if kind == name), None)
    if kind is None:
        return None
    wanted = kind in _SENSOR_EVENTS
    if not sign or bool(has_sensor) != wanted:
        example = f"{kind}=battery_c@600" if wanted else f"{kind}@600"
        raise UsageError(f"{word!r} is no event; write it like {example}, in seconds since the beginning.")
    if wanted and sensor not in SENSORS:
        raise UsageError(f"{word!r}: there is no sensor {sensor!r}{nearest(sensor, SENSORS)}: {', '.join(SENSORS)}.")
    return Event(_number(at, word, low=0.0, high=1e8), kind, sensor)


def _number(value: str, word: str, *, low: float, high: float) -> float:
    number = float(value) if _NUMBER.fullmatch(value) else math.nan
    if not low <= number <= high:
        raise UsageError(f"{word!r} needs a number from {low:g} to {high:g}.")
    return number


def _between(low: float, high: float) -> Option:
    return lambda value, word: _number(value, word, low=low, high=high)


def _whole(low: int, high: int) -> Option:
    def read(value: str, word: str) -> int:
        if not value.isdecimal() or not low <= int(value) <= high:
            raise UsageError(f"{word!r} needs a whole number from {low} to {high}.")
        return int(value)

    return read


def _yes_or_no(value: str, word: str) -> bool:
    if value not in ("yes", "no"):
        raise UsageError(f"{word!r} needs yes or no.")
    return value == "yes"


def _ambient(value: str, word: str) -> tuple[float, float, float]:
    if found := _RAMP.fullmatch(value):
        first, last = (_number(part, word, low=-30.0, high=60.0) for part in found.groups()[:2])
        return first, last, _number(found[3], word, low=1.0, high=1e8)
    if ".." in value:
        raise UsageError(f"{word!r} is no ramp; ambient=25..36@600 goes from 25 to 36 C within 600 s.")
    return (_number(value, word, low=-30.0, high=60.0),) * 2 + (1.0,)


def _time_of_day(value: str, word: str) -> int:
    found = re.fullmatch(r"(\d{1,2}):(\d{2})", value)
    if found is None or int(found[1]) > 23 or int(found[2]) > 59:
        raise UsageError(f"{word!r} needs a time of day such as 22:30.")
    return 60 * int(found[1]) + int(found[2])


_REPLAY_OPTIONS: dict[str, tuple[str, Option]] = {
    "start": ("start_minute", _time_of_day),
    "piece": ("piece_s", _between(0.001, 600.0)),
}
_OPTIONS: dict[str, tuple[str, Option]] = {
    "ambient": ("ambient", _ambient),
    "plugged": ("plugged", _yes_or_no),
    "percent": ("percent", _between(0.0, 100.0)),
    "seed": ("seed", _whole(0, 2**31)),
    "threads": ("threads", _whole(1, 64)),
    **_REPLAY_OPTIONS,
}
