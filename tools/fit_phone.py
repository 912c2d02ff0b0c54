"""Fits the thermal network of a simulated phone to recordings of a real one.

    python tools/fit_phone.py FOLDER [--hold-out NAME] [--write ondevice/device/profiles/galaxy-s25plus.toml]

FOLDER holds CSV files with the columns t_s, cpu_big_c, cpu_little_c, gpu_c, battery_c and chassis_c. The GPU idles in
them, so its sensor reads the package. Chassis and battery are predicted free-running from the CPU and GPU columns and
the first sample; every file is held out once and its error printed, then the profile is fitted without ``--hold-out``.
Temperatures say nothing of watts: the loss to still air (ASSUMED_AMBIENT_W_K) sets the scale.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["Recording", "StateFit", "battery_rmse_c", "fit_state", "load_recordings", "predict"]

Array = NDArray[np.float64]
HELD_OUT = "20251126_112051"
ASSUMED_AMBIENT_W_K = 0.24  # two faces and the rim of a 158 x 76 mm phone, 0.027 m2, at 9 W/(m2 K): free convection
ASSUMED_DIE_S = 1.0  # die above package: settled between two samples of the recordings
BIG_CORES, LITTLE_CORES = 2, 6
FULL_LOAD_S = 60.0

# Rates in 1/s, and what one degree of (CPU - package) adds to the battery in K/s: where the search begins, as a prior.
RATES = (
    "package_chassis",
    "battery_chassis",
    "ambient_chassis",
    "chassis_battery",
    "package_battery",
    "ambient_battery",
    "power_battery",
)
PRIOR = np.append(np.log([1 / 25, 1 / 300, 1 / 800, 1 / 210, 1 / 500, 1 / 1000, 1 / 500]), -3.0)
PRIOR_WIDTH = np.append(np.full(len(RATES), 1.5), 5.0)
PRIOR_WEIGHT = 1e-3


@dataclass(frozen=True)
class Recording:
    """One file; columns in degrees Celsius by name, ``t_s`` in seconds."""

    name: str
    columns: dict[str, Array]

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    @property
    def power_c(self) -> Array:
        """Degrees of the cores above the package: proportional to the heat they give."""
        return 0.5 * (self["cpu_big_c"] + self["cpu_little_c"]) - self["gpu_c"]


@dataclass(frozen=True)
class StateFit:
    """Rates in 1/s by name; the ambient is the first battery temperature plus ``ambient_offset_c``."""

    rates: dict[str, float]
    ambient_offset_c: float

    @property
    def numbers(self) -> Array:
        """The vector that the search moves: logarithms of the rates, and the offset."""
        return np.append(np.log([self.rates[name] for name in RATES]), self.ambient_offset_c)


def load_recordings(folder: Path) -> list[Recording]:
    """Every CSV of the folder, by name."""
    return [load_recording(path) for path in sorted(folder.glob("*.csv"))]


def load_recording(path: Path) -> Recording:
    """One CSV with a header line."""
    with path.open(encoding="utf-8", newline="") as lines:
        header, *rows = csv.reader(lines)
    table = np.array(rows, dtype=np.float64)
    return Recording(path.stem, {name: table[:, index] for index, name in enumerate(header)})


def predict(numbers: Array, recording: Recording) -> tuple[Array, Array]:
    """Chassis and battery, ``[rows, candidates]``, free-running from the first sample, for each row of ``numbers``."""
    numbers = np.atleast_2d(numbers)
    p_c, b_c, a_c, c_b, p_b, a_b, power_b = np.exp(numbers[:, :-1]).T
    ambient = recording["battery_c"][0] + numbers[:, -1]
    steps = np.diff(recording["t_s"], prepend=recording["t_s"][0])
    chassis = np.empty((len(steps), len(numbers)))
    battery = np.empty_like(chassis)
    chassis[0], battery[0] = recording["chassis_c"][0], recording["battery_c"][0]
    package, power = recording["gpu_c"], recording.power_c
    for k in range(1, len(steps)):
        c, b = chassis[k - 1], battery[k - 1]
        chassis[k] = c + steps[k] * (p_c * (package[k - 1] - c) + b_c * (b - c) + a_c * (ambient - c))
        warming = c_b * (c - b) + p_b * (package[k - 1] - b) + a_b * (ambient - b) + power_b * power[k - 1]
        battery[k] = b + steps[k] * warming
    return chassis, battery


def as_polled(values: Array, recorded: Array) -> Array:
    """The values as a sensor shows them that is asked only where the recording changes."""
    fresh = np.append(True, np.diff(recorded) != 0)
    return values[np.maximum.accumulate(np.where(fresh, np.arange(len(fresh)), 0))]


def fit_state(recordings: list[Recording]) -> StateFit:
    """Least squares of battery and chassis over whole files, free-running; the chassis counts a quarter."""

    def errors(numbers: Array) -> Array:
        parts = []
        for recording in recordings:
            chassis, battery = predict(numbers, recording)
            parts.append(0.5 * (chassis - recording["chassis_c"][:, None]))
            parts.append(as_polled(battery, recording["battery_c"]) - recording["battery_c"][:, None])
        return np.concatenate(parts)

    numbers = least_squares(errors, PRIOR, PRIOR_WIDTH)
    return StateFit(dict(zip(RATES, np.exp(numbers[:-1]).tolist(), strict=True)), float(numbers[-1]))


def least_squares(errors: Callable[[Array], Array], prior: Array, width: Array, rounds: int = 25) -> Array:
    """Levenberg-Marquardt with a weak prior; ``errors`` takes candidates in rows and gives them back in columns."""

    def cost(candidates: Array) -> Array:
        far = PRIOR_WEIGHT * (((candidates - prior) / width) ** 2).sum(axis=1)
        return np.asarray((errors(candidates) ** 2).mean(axis=0) + far)

    best, damping, nudge = prior, 1.0, 1e-3
    least = cost(best[None])[0]
    for _ in range(rounds):
        columns = errors(np.vstack([best, best + nudge * np.eye(len(best))]))
        slopes = (columns[:, 1:] - columns[:, :1]) / nudge
        curve = slopes.T @ slopes / len(slopes) + PRIOR_WEIGHT * np.diag(width**-2.0)
        down = slopes.T @ columns[:, 0] / len(slopes) + PRIOR_WEIGHT * (best - prior) / width**2
        dampings = damping * np.array([0.1, 1.0, 10.0])
        steps = [np.linalg.solve(curve + d * np.diag(np.diag(curve)), -down) for d in dampings]
        candidates = best + np.clip(steps, -1.0, 1.0)
        costs = cost(candidates)
        index = int(costs.argmin())
        if costs[index] >= least:
            damping *= 100
            continue
        gained = least - costs[index]
        best, least, damping = candidates[index], costs[index], float(dampings[index])
        if gained < 1e-7 * least:
            break
    return best


def battery_rmse_c(fit: StateFit, recording: Recording) -> float:
    """Root mean square error of the battery over every row of the file."""
    battery = predict(fit.numbers, recording)[1][:, 0]
    return float(np.sqrt(np.mean((battery - recording["battery_c"]) ** 2)))


@dataclass(frozen=True)
class Network:
    """The phone in joules, watts and kelvin."""

    capacity_j_k: dict[str, float]
    conductance_w_k: dict[str, float]
    to_ambient_w_k: dict[str, float]
    battery_heat: float
    package_rmse_c: float


def fit_network(fit: StateFit, recordings: list[Recording]) -> Network:
    """The same rates as a physical network, with the package and the dies in front."""
    rates = fit.rates
    battery = 1.0
    chassis = battery * rates["chassis_battery"] / rates["battery_chassis"]
    ambient = {"chassis": rates["ambient_chassis"] * chassis, "battery": rates["ambient_battery"] * battery}
    scale = ASSUMED_AMBIENT_W_K / sum(ambient.values())
    battery, chassis = battery * scale, chassis * scale
    to_chassis, to_battery = rates["package_chassis"] * chassis, rates["package_battery"] * battery
    package, core, rmse_c = fit_package(fit, recordings, to_chassis, to_battery)
    conductance = {
        "cpu_big-package": core,
        "cpu_little-package": core,
        "package-chassis": to_chassis,
        "package-battery": to_battery,
        "chassis-battery": rates["chassis_battery"] * battery,
    }
    die = ASSUMED_DIE_S * core
    return Network(
        {"cpu_big": die, "cpu_little": die, "package": package, "chassis": chassis, "battery": battery},
        conductance,
        {name: watts * scale for name, watts in ambient.items()},
        battery_heat=rates["power_battery"] * battery / (2 * core),
        package_rmse_c=rmse_c,
    )


def fit_package(
    fit: StateFit, recordings: list[Recording], to_chassis: float, to_battery: float
) -> tuple[float, float, float]:
    """Capacity of the package, conductance of each die to it (one for both: the CPU columns move together), error."""
    states = [(recording, *(column[:, 0] for column in predict(fit.numbers, recording))) for recording in recordings]

    def errors(numbers: Array) -> Array:
        capacity, core = np.exp(np.atleast_2d(numbers)).T
        total = 2 * core + to_chassis + to_battery
        parts = []
        for recording, chassis, battery in states:
            outside = to_chassis * chassis + to_battery * battery
            dies = recording["cpu_big_c"] + recording["cpu_little_c"]
            package = np.empty((len(dies), len(capacity)))
            package[0] = recording["gpu_c"][0]
            steps = np.diff(recording["t_s"], prepend=recording["t_s"][0])
            for k in range(1, len(dies)):
                goal = (core * dies[k] + outside[k]) / total
                package[k] = goal + (package[k - 1] - goal) * np.exp(-total / capacity * steps[k])
            parts.append(package - recording["gpu_c"][:, None])
        return np.concatenate(parts)

    numbers = least_squares(errors, np.log([5.0, 0.2]), np.array([2.0, 2.0]))
    capacity, core = np.exp(numbers).tolist()
    return capacity, core, float(np.sqrt(np.mean(errors(numbers) ** 2)))


@dataclass(frozen=True)
class Load:
    """What all cores at full load gave, and how the kernel took it back as the hotter cores warmed."""

    big_w: float
    little_w: float
    throttle_cpu_c: float
    throttle_cpu_per_c: float


def fit_load(network: Network, recording: Recording) -> Load:
    """From the longest stretch of full load of the file: its first seconds, and the line of power over temperature."""
    core = network.conductance_w_k["cpu_big-package"]
    big, little = (core * (recording[name] - recording["gpu_c"]) for name in ("cpu_big_c", "cpu_little_c"))
    first, last = longest_stretch(big + little > 0.4 * (big + little).max())
    if recording["t_s"][last] - recording["t_s"][first] < FULL_LOAD_S:
        raise SystemExit(f"{recording.name} holds no full load of {FULL_LOAD_S:.0f} s; name another with --load.")
    start = slice(first, first + 4)
    full_big, full_little = float(big[start].max()), float(little[start].max())
    share = (big + little)[first + 5 : last - 8] / (full_big + full_little)
    hottest = recording["cpu_little_c"][first + 5 : last - 8]
    slope, offset = np.polyfit(hottest, share, 1)
    return Load(full_big, full_little, float((1 - offset) / slope), float(-slope))


def longest_stretch(flags: Array) -> tuple[int, int]:
    """First and last index of the longest run of true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    runs = edges.reshape(-1, 2)
    first, past = runs[(runs[:, 1] - runs[:, 0]).argmax()]
    return int(first), int(past) - 1


def profile_toml(network: Network, load: Load, said: list[str]) -> str:
    """The profile; what no recording tells is stated as such."""

    def table(name: str, values: dict[str, float]) -> list[str]:
        return ["", f"[{name}]", *(f"{key} = {value:.4g}" for key, value in values.items())]

    fitted = {
        "big_core_w": load.big_w / BIG_CORES,
        "little_core_w": load.little_w / LITTLE_CORES,
        "throttle_cpu_c": load.throttle_cpu_c,
        "throttle_cpu_per_c": load.throttle_cpu_per_c,
        "battery_heat": network.battery_heat,
    }
    lines = [
        *(f"# {line}" for line in ("Written by tools/fit_phone.py; do not edit.", *said)),
        'name = "galaxy-s25plus"',
        'about = "Galaxy S25+, fitted to recordings made inside Termux"',
        *(f"{key} = {value:.4g}" for key, value in fitted.items()),
        "",
        "# Not in the recordings. Limiting from 40 C and half power at 42 C are the vendor's; 2 prime and 6",
        "# performance cores and 4.9 Ah at 3.87 V are on the data sheet; the rest is assumed.",
        f"big_cores = {BIG_CORES}",
        f"little_cores = {LITTLE_CORES}",
        "little_rate = 0.8",
        "contention = 0.06",
        "threads = 4",
        "power_exponent = 2.5",
        "idle_w = 0.35",
        "screen_w = 0.8",
        "throttle_battery_c = 40.0",
        "half_power_battery_c = 42.0",
        "throttle_floor = 0.2",
        "severe_battery_c = 45.0",
        "battery_wh = 18.9",
        "charge_w = 15.0",
        "charge_heat = 0.06",
        *table("capacity_j_k", network.capacity_j_k),
        *table("conductance_w_k", network.conductance_w_k),
        *table("to_ambient_w_k", network.to_ambient_w_k),
    ]
    return "\n".join(lines) + "\n"


def held_out_table(recordings: list[Recording]) -> list[str]:
    """Each file predicted by a fit on the others."""
    lines = []
    for held_out in recordings:
        fit = fit_state([recording for recording in recordings if recording is not held_out])
        line = f"held out {held_out.name}: battery RMSE {battery_rmse_c(fit, held_out):.2f} C"
        print(line, flush=True)
        lines.append(line)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hold-out", default=HELD_OUT, help="file without which the profile is fitted")
    parser.add_argument("--load", default="20251126_142908", help="file with a step to full load")
    parser.add_argument("--write", type=Path, help="where the profile goes")
    args = parser.parse_args()
    recordings = load_recordings(args.folder)
    if not {args.hold_out, args.load} <= {recording.name for recording in recordings}:
        raise SystemExit(f"{args.folder} holds no {args.hold_out}.csv or no {args.load}.csv.")
    said = held_out_table(recordings)
    used = [recording for recording in recordings if recording.name != args.hold_out]
    fit = fit_state(used)
    network = fit_network(fit, used)
    load = fit_load(network, next(recording for recording in recordings if recording.name == args.load))
    for recording in recordings:
        kind = "fitted" if recording in used else "held out"
        print(f"profile, {kind} {recording.name}: battery RMSE {battery_rmse_c(fit, recording):.2f} C")
    constants = ", ".join(f"{name} {1 / rate:.0f}" for name, rate in fit.rates.items())
    print(f"time constants in s: {constants}; ambient = first battery temperature {fit.ambient_offset_c:+.1f} C")
    print(f"package RMSE {network.package_rmse_c:.2f} C; {network}\n{load}")
    if args.write:
        names = " and ".join(recording.name for recording in used)
        args.write.write_text(profile_toml(network, load, [f"Fitted to {names}.", *said]), encoding="utf-8")


if __name__ == "__main__":
    main()
