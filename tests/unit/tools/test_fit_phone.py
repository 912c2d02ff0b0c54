"""The fit of the simulated phone to recordings, and the shipped profile against the real phone."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from ondevice.device.simulate import SimulatedPhone
from ondevice.device.simulate_profile import load_profile
from tools.fit_phone import (
    HELD_OUT,
    RATES,
    Recording,
    StateFit,
    as_polled,
    battery_rmse_c,
    fit_load,
    fit_network,
    fit_state,
    load_recordings,
    longest_stretch,
    predict,
    profile_toml,
)

DATA = (
    Path(os.environ.get("ONDEVICE_TEST_DATA", Path(__file__).parents[3] / "../shared/data")) / "thermal_galaxy_s25plus"
)
real = pytest.mark.skipif(not DATA.is_dir(), reason="the recordings are not on this machine")
TRUE = StateFit(dict(zip(RATES, (1 / 15, 1 / 40, 1 / 400, 1 / 450, 1 / 250, 1 / 300, 1 / 900), strict=True)), -3.5)


def made_up(seed: int, *, first_c: float) -> Recording:
    """Bursts of load on a phone that obeys TRUE exactly; its battery is told every 30 s, in tenths."""
    dice = np.random.default_rng(seed)
    t_s = np.arange(0.0, 900.0, 1.0)
    power = np.repeat(dice.uniform(0, 40, size=9), 100)
    package = first_c + 2 + np.convolve(power, np.exp(-t_s / 20) * 0.02)[: len(t_s)]
    flat = np.full(len(t_s), first_c)
    columns = {
        "t_s": t_s,
        "cpu_big_c": package + 0.7 * power,
        "cpu_little_c": package + 1.3 * power,
        "gpu_c": package,
        "battery_c": flat,
        "chassis_c": flat,
    }
    chassis, battery = predict(TRUE.numbers, Recording("made-up", columns))
    polled = np.round(battery[:, 0], 1)[(np.arange(len(t_s)) // 30) * 30]
    return Recording(f"made-up-{seed}", {**columns, "chassis_c": chassis[:, 0], "battery_c": polled})


def test_a_phone_that_obeys_the_model_is_found_again():
    recordings = [made_up(1, first_c=12.0), made_up(2, first_c=27.0)]
    fit = fit_state(recordings)
    unseen = made_up(3, first_c=20.0)
    assert battery_rmse_c(fit, unseen) < 0.5
    assert 1 / fit.rates["package_chassis"] == pytest.approx(15, rel=0.25)
    wrong = StateFit({**fit.rates, "package_battery": 2 * fit.rates["package_battery"]}, fit.ambient_offset_c)
    assert battery_rmse_c(wrong, unseen) > 2 * battery_rmse_c(fit, unseen)


def test_a_polled_sensor_holds_its_value():
    recorded = np.array([5.0, 5.0, 6.0, 6.0, 6.0, 5.5])
    assert as_polled(np.arange(6.0), recorded).tolist() == [0, 0, 2, 2, 2, 5]


def test_the_longest_stretch_is_found():
    assert longest_stretch(np.array([1, 0, 1, 1, 1, 0, 1, 1], dtype=bool)) == (2, 4)


@real
def test_the_battery_is_predicted_on_a_file_that_was_not_used(tmp_path):
    recordings = load_recordings(DATA)
    used = [recording for recording in recordings if recording.name != HELD_OUT]
    fit = fit_state(used)
    held_out = next(recording for recording in recordings if recording.name == HELD_OUT)
    still = float(np.sqrt(np.mean((held_out["battery_c"] - held_out["battery_c"][0]) ** 2)))
    assert battery_rmse_c(fit, held_out) <= 1.0
    assert battery_rmse_c(fit, held_out) < 0.5 * still  # better than to say that nothing changes
    load = fit_load(network := fit_network(fit, used), next(r for r in used if r.name == "20251126_142908"))
    path = tmp_path / "again.toml"
    path.write_text(profile_toml(network, load, ["A test."]), encoding="utf-8")
    again, shipped = load_profile(str(path)), load_profile("galaxy-s25plus")
    assert again.capacity_j_k == pytest.approx(shipped.capacity_j_k, rel=0.02)
    assert again.conductance_w_k == pytest.approx(shipped.conductance_w_k, rel=0.02)
    assert again.throttle_cpu_c == pytest.approx(shipped.throttle_cpu_c, abs=0.5)


@real
def test_the_simulated_phone_answers_a_step_to_full_load_as_the_real_one_did():
    """From heat alone: nothing but the temperatures before the step is taken from the recording."""
    recording = next(r for r in load_recordings(DATA) if r.name == "20251126_142908")
    first = int(np.searchsorted(recording["t_s"], 431.5))
    columns = {
        "cpu_big": "cpu_big_c",
        "cpu_little": "cpu_little_c",
        "package": "gpu_c",
        "chassis": "chassis_c",
        "battery": "battery_c",
    }
    start_c = {node: float(recording[column][first]) for node, column in columns.items()}
    phone = SimulatedPhone("galaxy-s25plus", ambient_c=0.1, plugged=False, start_c=start_c)
    errors: dict[str, list[float]] = {node: [] for node in columns}
    for row in range(first + 1, first + 340):
        phone.advance(float(recording["t_s"][row] - recording["t_s"][row - 1]), threads=8)
        for node, column in columns.items():
            errors[node].append(phone.network.temperature(node) - float(recording[column][row]))
    rmse = {node: float(np.sqrt(np.mean(np.square(values[10:])))) for node, values in errors.items()}
    assert rmse["battery"] < 2.5 and rmse["chassis"] < 2.5
    assert rmse["package"] < 2.5 and rmse["cpu_big"] < 2.0 and rmse["cpu_little"] < 1.5
