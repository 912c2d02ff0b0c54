"""What a governor could do at most, in steady weather, and how many degrees the wanted share of it leaves.

    python tools/bench/governor_bound.py [--profile galaxy-s25plus] [--limit 40] [--piece 2]

Over hours work is heat that leaves again: with G the rise of the battery that full work would bring in the end and E
where it idles, a mean temperature T means a duty of (T - E) / G. Whoever keeps the mean m degrees lower than another
does m / (limit - E) less.

*Swing*: work comes in pieces, and the peak after one lies above the mean. With b degrees a second of full work, a lag
l between the cores and the battery, pieces of w seconds and the duty d, the load arrives as a row of rises and decays
whose largest value is h = (1 - exp(-w / l)) / (1 - exp(-w / (d l))). The temperature rises until that has fallen to d,
s = l ln(h / d) after the piece, and there it is b (w (1 - d) / 2 - d s) above its mean. The oracle pays this too.

*Left*: how far below the limit the peaks lie where a piece of w seconds is worked every c / 0.92 seconds in place of
the shortest c that keeps the limit: the error of the estimate, its doubt and every late answer together may cost no
more where 92 % of the oracle is wanted. Exact, by all modes of the network; 0 where not even one piece fits. Long
pieces leave less than short ones: how long the phone has to cool hangs on the last tenths of a degree.

*Processor* and *body* alone: both idle some degrees above the battery, by heat that has nothing to do with training.
That distance is in no reading: a warmer battery and a smaller distance give the same samples for ever, whatever
work is done. A governor that promises the limit on every phone has to take it for nothing, so the battery stays lower
by it: at most 1 - distance / (limit - E), even with sensors without noise.

Throttled cores do more for a joule, and the first approach is not of steady weather; neither is reckoned here.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from math import exp, expm1, log
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from ondevice.device.simulate import SimulatedPhone
from ondevice.device.simulate_network import ThermalNetwork
from ondevice.device.simulate_profile import load_profile

__all__ = ["Bound", "Pieces", "bound", "swing_c"]

WANTED = 0.92
AMBIENTS_C = (15, 20, 25, 28, 30, 35, 38)
ROUNDS = 20
LOOK_S, PEAK_S = 0.5, 90.0  # of the search for a peak after a piece
LONGEST_S, HALVINGS = 1e5, 50


@dataclass(frozen=True)
class Bound:
    """Degrees, and shares of what an oracle does. ``room_c``: between idling and the limit."""

    room_c: float
    duty: float
    swing_c: float
    left_c: float
    cpu: float
    skin: float


def bound(profile_name: str, ambient_c: float, *, limit_c: float, piece_s: float) -> Bound:
    """Of the profile's phone, plugged in and full, in an ambient that stays."""
    profile = load_profile(profile_name)
    phone = SimulatedPhone(profile, ambient_c=ambient_c, battery_percent=100.0)
    idle = phone.truth
    big_w, little_w = profile.core_heat_w(profile.threads)
    network = ThermalNetwork(profile.capacity_j_k, profile.conductance_w_k, profile.to_ambient_w_k)
    network.settle(network.drive({"cpu_big": big_w, "cpu_little": little_w}))
    gain_c, room_c = network.temperature("battery"), max(0.0, limit_c - idle.battery_c)
    steps = [mode * share for mode, share in zip(network.modes, network.shape["battery"], strict=True)]
    rates = sorted(network.rates)[:2]  # the body itself, and the heat on its way to it
    warming, lag_s = gain_c * rates[0], 1 / rates[1]
    assert max(steps) > 0.9 * gain_c, "not a body of one slow mode"
    duty = swing = 0.0
    for _ in range(ROUNDS):
        duty = min(1.0, max(0.0, room_c - swing) / gain_c)
        swing = swing_c(duty, piece_s, warming, lag_s)
    distances_c = [max(idle.cpu_big_c, idle.cpu_little_c) - idle.battery_c, idle.chassis_c - idle.battery_c]
    cpu, skin = (max(0.0, 1 - max(0.0, each_c) / room_c) if room_c else 0.0 for each_c in distances_c)
    pieces = Pieces(piece_s, steps, network.rates)
    shortest_s = pieces.shortest_s(room_c)
    left_c = room_c - pieces.peak_c(shortest_s / WANTED) if shortest_s is not None else 0.0
    return Bound(room_c, duty, swing, left_c, cpu, skin)


@dataclass(frozen=True)
class Pieces:
    """Pieces of work at even distances, for ever. ``steps_c``: what full work would warm by each mode in the end."""

    piece_s: float
    steps_c: list[float]
    rates: list[float]

    def peak_c(self, cycle_s: float) -> float:
        """The warmest moment of a cycle, above idling."""
        ends_c = [
            step_c * expm1(-rate * self.piece_s) / expm1(-rate * cycle_s)
            for step_c, rate in zip(self.steps_c, self.rates, strict=True)
        ]
        after_s = (LOOK_S * k for k in range(int(PEAK_S / LOOK_S)))
        return max(sum(end_c * exp(-rate * t) for end_c, rate in zip(ends_c, self.rates, strict=True)) for t in after_s)

    def shortest_s(self, room_c: float) -> float | None:
        """The shortest cycle whose peaks lie within the room; None where even a single piece is too much."""
        low, high = self.piece_s, LONGEST_S
        if self.peak_c(high) > room_c:
            return None
        for _ in range(HALVINGS):
            middle = 0.5 * (low + high)
            low, high = (low, middle) if self.peak_c(middle) <= room_c else (middle, high)
        return high


def swing_c(duty: float, piece_s: float, warming: float, lag_s: float) -> float:
    """How far the peak after a piece lies above the mean; ``warming`` in degrees a second of full work."""
    if not 0.0 < duty < 1.0:
        return 0.0
    most = expm1(-piece_s / lag_s) / expm1(-piece_s / (duty * lag_s))
    return warming * (piece_s * (1 - duty) / 2 - duty * lag_s * log(most / duty))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="galaxy-s25plus")
    parser.add_argument("--limit", type=float, default=40.0, help="of the battery, degrees Celsius")
    parser.add_argument("--piece", type=float, default=2.0, help="seconds of a micro-batch")
    args = parser.parse_args()
    print(f"{'ambient':>7} {'room C':>7} {'duty':>6} {'swing C':>8} {'left C':>7} {'processor':>10} {'body':>6}")
    for ambient_c in AMBIENTS_C:
        found = bound(args.profile, ambient_c, limit_c=args.limit, piece_s=args.piece)
        print(
            f"{ambient_c:>7} {found.room_c:>7.2f} {found.duty:>6.3f} {found.swing_c:>8.3f} {found.left_c:>7.3f} "
            f"{found.cpu:>10.3f} {found.skin:>6.3f}"
        )


if __name__ == "__main__":
    main()
