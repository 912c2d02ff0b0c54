"""A phone in numbers: heat from work, throttling, charging, lost sensors and sudden events, in its own time.

``phone = SimulatedPhone("galaxy-s25plus", ambient_c=30, seed=1); phone.advance(60, duty=0.5); phone.read().battery_c``.
`truth` is what is, `read` what a program on such a phone would be told. Knows no clock but its own, and no trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from operator import mul
from typing import Literal

from ondevice.device.readings import Reading
from ondevice.device.simulate_network import ThermalNetwork
from ondevice.device.simulate_profile import Profile, load_profile
from ondevice.device.simulate_sensors import SensorKind, SimulatedSensors, Truth

__all__ = ["Event", "SimulatedPhone"]

TICK_S = 1.0  # the kernel looks at temperatures this often and holds the frequency in between
SLEW = 0.3  # share of the way to its goal that the power goes in one tick
CHARGE_LOOK_S = 16.0
READ_PERIOD_S = 1.0
CHARGES_BELOW_C = 45.0
TAPER_PERCENT = 80.0
NEVER = float("inf")

Ambient = float | Callable[[float], float]  # degrees Celsius, or those at a second since the start
EventKind = Literal["plug", "unplug", "screen_on", "screen_off", "background", "foreground", "kill", "lose", "find"]


@dataclass(frozen=True, order=True)
class Event:
    """Something that happens ``at_s`` seconds after the start; ``sensor`` is what is lost or found."""

    at_s: float
    kind: EventKind
    sensor: str = ""


class SimulatedPhone:
    """Same face as `Sensors`, and a body. Seconds since the start are `now_s`; every random choice is the seed's."""

    def __init__(
        self,
        profile: Profile | str,
        *,
        ambient_c: Ambient = 25.0,
        plugged: bool = True,
        charger_w: float | None = None,
        battery_percent: float = 70.0,
        seed: int = 0,
        sensors: SensorKind | None = None,
        events: Sequence[Event] = (),
        start_c: dict[str, float] | None = None,
        start_t: float = 1.7e9,
    ) -> None:
        """Begins idle for long at its ambient, unless ``start_c`` gives a temperature for each node.

        ``charger_w``: what the charger can give, else what the profile charges with. ``start_t``: unix seconds.
        """
        self.profile = load_profile(profile) if isinstance(profile, str) else profile
        self.network = ThermalNetwork(
            self.profile.capacity_j_k, self.profile.conductance_w_k, self.profile.to_ambient_w_k
        )
        self.now_s = 0.0
        self.worked_s = 0.0  # seconds of work at full speed that were done
        self.drawn_j = 0.0  # energy drawn from the battery, charging not counted
        self.killed = False
        self.battery_percent = battery_percent
        self._ambient, self._plugged, self._start_t = ambient_c, plugged, start_t
        self._charger_w = self.profile.charge_w if charger_w is None else charger_w
        self._screen_on = self._background = False
        self._share = 1.0  # of the power that the kernel allows
        self._frequency = 1.0
        self._charging_w = self._draw_w = 0.0
        self._events = sorted(events)
        self._sensors = SimulatedSensors(sensors or SensorKind(), seed=seed)
        self._loads: dict[tuple[int, bool, bool], tuple[list[float], float]] = {}
        self._hot = [(self.network.shape[name]) for name in ("cpu_big", "cpu_little", "battery")]
        self._last: Reading | None = None
        self._last_s = 0.0
        self._next_tick_s, self._next_charge_look_s = TICK_S, 0.0
        self._idle = self._idle_drive()
        self._start(start_c)

    def _start(self, start_c: dict[str, float] | None) -> None:
        if start_c is None:
            self.network.settle(self._idle)
        else:
            self.network.start(start_c)
        self._sensors.poll(self.now_s, self.truth)

    # --- what it does -------------------------------------------------------------------------------------------------

    @property
    def speed(self) -> float:
        """How fast a step goes now: 1 for the profile's threads on a cold phone in the foreground, 0 when killed."""
        return self.speed_of(self.profile.threads)

    def speed_of(self, threads: int) -> float:
        """The same for another number of threads."""
        return 0.0 if self.killed else self._frequency * self.profile.rate(threads, background=self._background)

    def advance(self, dt_s: float, *, duty: float = 1.0, threads: int | None = None) -> None:
        """Lets ``dt_s`` seconds pass in which ``threads`` threads work a ``duty`` share of the time, evenly spread.

        Exact for what it models: within a tick of the kernel heat is constant, and the network is solved in closed
        form, so it does not matter into how many calls a time is cut.
        """
        end_s = self.now_s + dt_s
        used = self.profile.threads if threads is None else threads
        while self.now_s < end_s - 1e-9:
            until_s = min(end_s, self._next_stop_s())
            self._pass(until_s - self.now_s, duty, used)
            self.now_s = until_s
            self._stop()

    def work(self, full_speed_s: float, *, threads: int | None = None) -> float:
        """Works until that much work is done, or until killed; the seconds it took, throttling included."""
        used = self.profile.threads if threads is None else threads
        began_s, goal_s = self.now_s, self.worked_s + full_speed_s
        while (missing_s := goal_s - self.worked_s) > 1e-9 and (speed := self.speed_of(used)) > 0:
            until_s = min(self.now_s + missing_s / speed, self._next_stop_s())
            self._pass(until_s - self.now_s, 1.0, used)
            self.now_s = until_s
            self._stop()
        return self.now_s - began_s

    def _next_stop_s(self) -> float:
        event_s = self._events[0].at_s if self._events else NEVER
        return min(self._next_tick_s, event_s, self._sensors.due_s)

    def _pass(self, dt_s: float, duty: float, threads: int) -> None:
        """Time without any change from outside."""
        push, load_w = self._load(threads)
        busy = 0.0 if self.killed else duty
        heat = busy * self._share
        self.network.advance(dt_s, [idle + heat * more for idle, more in zip(self._idle, push, strict=True)])
        self.worked_s += busy * self.speed_of(threads) * dt_s
        self._draw_w = self.profile.idle_w + self._screen_on * self.profile.screen_w + heat * load_w
        self._charge(dt_s)

    def _load(self, threads: int) -> tuple[list[float], float]:
        """What full work of so many threads adds to the drive of the network, and its watts."""
        key = threads, self._background, self._plugged
        found = self._loads.get(key)
        if found is None:
            big_w, little_w = self.profile.core_heat_w(threads, background=self._background)
            own_w = 0.0 if self._plugged else self.profile.battery_heat * (big_w + little_w)
            heat_w = {"cpu_big": big_w, "cpu_little": little_w, "battery": own_w}
            found = self._loads[key] = self.network.drive(heat_w), big_w + little_w
        return found

    def _charge(self, dt_s: float) -> None:
        from_battery_w = self._from_battery_w
        self.drawn_j += max(0.0, from_battery_w) * dt_s
        self.battery_percent -= from_battery_w * dt_s / (36.0 * self.profile.battery_wh)
        self.battery_percent = min(100.0, max(0.0, self.battery_percent))

    @property
    def _from_battery_w(self) -> float:
        """Negative while charging."""
        if not self._plugged:
            return self._draw_w
        return max(self._draw_w - self._charger_w, -self._charging_w)

    # --- what happens at the stops ------------------------------------------------------------------------------------

    def _stop(self) -> None:
        now_s = self.now_s + 1e-9
        while self._events and self._events[0].at_s <= now_s:
            self._happen(self._events.pop(0))
        if self._next_tick_s <= now_s:
            self._next_tick_s += TICK_S
            self._tick()
        if self._sensors.due_s <= now_s:
            self._sensors.poll(self.now_s, self.truth)

    def _tick(self) -> None:
        """The kernel's turn: the power goes towards what the temperatures allow."""
        modes = self.network.modes
        big_c, little_c, battery_c = (sum(map(mul, row, modes)) for row in self._hot)
        goal = self._allowed(big_c if big_c > little_c else little_c, battery_c)
        if goal != self._share:
            self._share += SLEW * (goal - self._share)
            if abs(goal - self._share) < 1e-6:
                self._share = goal
            self._frequency = self._share ** (1 / self.profile.power_exponent)
        if self._plugged and self.now_s >= self._next_charge_look_s:
            self._next_charge_look_s = self.now_s + CHARGE_LOOK_S
            self._charging_w = self._charging_now_w(battery_c)
            self._idle = self._idle_drive()
        elif callable(self._ambient):
            self._idle = self._idle_drive()

    def _allowed(self, hottest_c: float, battery_c: float) -> float:
        profile = self.profile
        share = 1.0
        if hottest_c > profile.throttle_cpu_c:
            share -= profile.throttle_cpu_per_c * (hottest_c - profile.throttle_cpu_c)
        over_c = battery_c - profile.throttle_battery_c
        if over_c > 0:
            share *= 1 - 0.5 * over_c / (profile.half_power_battery_c - profile.throttle_battery_c)
        return max(share, profile.throttle_floor)

    def _charging_now_w(self, battery_c: float) -> float:
        """What the battery takes: less above the taper, nothing when hot or full."""
        if battery_c >= CHARGES_BELOW_C or self.battery_percent >= 100:
            return 0.0
        above = max(0.0, self.battery_percent - TAPER_PERCENT) / (100 - TAPER_PERCENT)
        wanted_w = self.profile.charge_w * (1 - 0.95 * above)
        return max(0.0, min(wanted_w, self._charger_w - self._draw_w))

    def _idle_drive(self) -> list[float]:
        """Everything but training."""
        screen_w = self.profile.screen_w if self._screen_on else 0.0
        if self._plugged:
            battery_w = self.profile.charge_heat * self._charging_w
        else:
            battery_w = self.profile.battery_heat * (self.profile.idle_w + screen_w)
        heat_w = {"package": self.profile.idle_w, "chassis": screen_w, "battery": battery_w}
        return self.network.drive(heat_w, ambient_c=self.ambient_c)

    def _happen(self, event: Event) -> None:
        match event.kind:
            case "plug" | "unplug":
                self._plugged, self._charging_w, self._next_charge_look_s = event.kind == "plug", 0.0, 0.0
            case "screen_on" | "screen_off":
                self._screen_on = event.kind == "screen_on"
            case "background" | "foreground":
                self._background = event.kind == "background"
            case "kill":
                self.killed = True
            case "lose" | "find":
                self._sensors.lose(event.sensor, lost=event.kind == "lose")
        self._idle = self._idle_drive()

    def happen(self, kind: EventKind, sensor: str = "") -> None:
        """An event of now."""
        self._happen(Event(self.now_s, kind, sensor))

    def revive(self) -> None:
        """The process is started again after a kill."""
        self.killed = False

    def copy(self) -> SimulatedPhone:
        """Another phone in the same state, to try things out on: neither notices what the other does."""
        other = copy(self)
        other.network, other._sensors, other._events = copy(self.network), self._sensors.copy(), list(self._events)
        return other

    # --- what can be known --------------------------------------------------------------------------------------------

    @property
    def ambient_c(self) -> float:
        """Degrees Celsius around it now."""
        return self._ambient(self.now_s) if callable(self._ambient) else self._ambient

    @property
    def truth(self) -> Truth:
        """What is, without noise."""
        values = {f"{name}_c": self.network.temperature(name) for name in self.network.nodes}
        return Truth(
            **values,
            ambient_c=self.ambient_c,
            battery_percent=self.battery_percent,
            plugged=self._plugged,
            full=self.battery_percent >= 100,
            from_battery_w=self._from_battery_w,
            freq_share=self._frequency,
            screen_on=self._screen_on,
            severe_battery_c=self.profile.severe_battery_c,
        )

    @property
    def t(self) -> float:
        """Unix seconds of its clock."""
        return self._start_t + self.now_s

    def read(self) -> Reading:
        """What its sensors say now, asked at most once a second: late, coarse, noisy, or nothing."""
        if self._last is None or self.now_s >= self._last_s + READ_PERIOD_S:
            self._last, self._last_s = self._sensors.reading(self.t, self.now_s, self.truth), self.now_s
        return self._last

    @property
    def unknown(self) -> dict[str, str]:
        """Why a value of the last reading was None."""
        return self._sensors.unknown

    def close(self) -> None:
        """Nothing to end."""
