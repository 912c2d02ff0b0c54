"""Readings: what a whole machine gives, unreadable sensors, slow commands, and the price of asking."""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from ondevice.device import memory, readings
from ondevice.device.readings import NAMES, Reading, Sensors, peak_rss_mb, settled_reading

SHAPES = Path(__file__).parents[2] / "fixtures/termux_api"


class Clock:
    """Time that moves when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _no_sensors_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(psutil, "sensors_temperatures", dict, raising=False)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)
    yield
    assert not slow_threads()


def slow_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "slow sensors"]


def sensors(tree: Any, clock: Clock | None = None, *, env: dict[str, str] | None = None) -> Sensors:
    return Sensors(tree.root, proc=tree.proc, sysfs=tree.sysfs, env=env or {}, clock=clock or Clock())


def every_none_has_a_reason(reading: Reading) -> bool:
    values = reading.to_json()
    missing = {name for name in NAMES if values[name] is None}
    known = set(NAMES) - missing
    return missing == set(reading.unknown) and known == set(reading.sources) == set(reading.ages_s)


@pytest.mark.usefixtures("android")
def test_galaxy(galaxy: Any) -> None:
    galaxy.write("proc/self/statm", "90000 25600 9000 1 0 0 0\n")
    galaxy.core(6, scaling_cur_freq=2_236_800)
    reading = sensors(galaxy).read()
    assert (reading.total_mb, reading.available_mb) == (11264.0, 4096.0)
    assert reading.rss_mb == round(25600 * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
    assert reading.cpu_c == 61.7  # the hottest core; not the GPU, the battery or the zone that is off
    assert reading.battery_c == 35.1
    assert reading.freq_share == 0.5
    assert reading.disk_free_mb is not None
    assert abs(reading.t - time.time()) < 60
    assert reading.sources["cpu_c"] == "zone cpu-1-1-0"
    assert every_none_has_a_reason(reading)
    json.dumps(reading.to_json() | reading.details(), allow_nan=False)


def test_a_laptop_starts_no_thread(tree: Any) -> None:
    tree.write("proc/meminfo", "MemTotal: 8000000 kB\nMemAvailable: 4000000 kB\n")
    tree.supply("BAT0", status="Discharging", capacity=81, power_now=7_300_000)
    tree.supply("AC", type="Mains", online=0)
    tree.zone(0, "x86_pkg_temp", "64000")
    tree.core(0, cpuinfo_max_freq=4_000_000, scaling_cur_freq=3_000_000)
    tree.write("sys/class/backlight/intel/actual_brightness", "0\n")
    before = threading.active_count()
    device = sensors(tree)
    reading = device.read()
    assert threading.active_count() == before
    assert (reading.battery_percent, reading.plugged, reading.power_w) == (81.0, False, 7.3)
    assert (reading.cpu_c, reading.freq_share, reading.screen_on) == (64.0, 0.75, False)
    assert device.unknown["thermal_status"] == "only Android tells it"
    assert every_none_has_a_reason(reading)


@pytest.mark.usefixtures("android")
def test_everything_denied(galaxy: Any, denied: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/somewhere")

    galaxy.write("proc/self/statm", "1 1 1\n")
    denied(galaxy.root)
    monkeypatch.setattr(os, "statvfs", refuse)
    device = sensors(galaxy)
    reading = device.read()
    assert reading == Reading(t=reading.t)
    assert device.unknown == reading.unknown
    assert device.unknown["disk_free_mb"] == "permission denied: /somewhere"
    assert device.unknown["battery_percent"] == "termux-battery-status is not installed"
    assert set(device.unknown) == set(NAMES)


def test_a_denied_battery_without_termux(galaxy: Any, denied: Callable[[Path], None]) -> None:
    galaxy.supply("battery", capacity=50)
    denied(galaxy.sysfs / "class/power_supply")
    assert "permission denied" in sensors(galaxy).read().unknown["battery_percent"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"actual_brightness": 700, "brightness": 0, "bl_power": 0}, True),
        ({"brightness": 700}, True),
        ({"brightness": 700, "bl_power": 4}, False),
        ({"actual_brightness": 0, "brightness": 700}, False),
        ({}, None),
    ],
)
def test_screen(files: dict[str, int], expected: bool | None, tree: Any) -> None:
    (tree.sysfs / "class/backlight/panel").mkdir(parents=True)
    for name, value in files.items():
        tree.write(f"sys/class/backlight/panel/{name}", f"{value}\n")
    assert sensors(tree).read().screen_on is expected


def test_reads_at_most_once_a_period(galaxy: Any) -> None:
    clock = Clock()
    device = sensors(galaxy, clock)
    first = device.read()
    clock.now += 0.9
    assert device.read() is first
    clock.now += 0.2
    assert device.read() is not first


def test_a_driver_that_is_slow_is_asked_less_often(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked = Clock(), []

    def slow(_: Path) -> Any:
        asked.append(clock.now)
        time.sleep(0.02)
        return readings.Answer({"screen_on": True}, {"screen_on": "test"}, {})

    monkeypatch.setattr(readings.screen, "read_screen", slow)
    device = sensors(tree, clock)
    ages = []
    while len(asked) < 4:
        ages.append(device.read().ages_s["screen_on"])
        clock.now += 1.5
    assert all(later - earlier >= 4.0 for earlier, later in pairwise(asked))  # 200 times the 20 ms that it took
    assert min(ages) == 0.0 and max(ages) >= 3.0


def test_a_sensor_that_comes_back_clears_its_reason(galaxy: Any) -> None:
    clock = Clock()
    meminfo = galaxy.proc / "meminfo"
    text = meminfo.read_text()
    meminfo.write_text("")
    device = sensors(galaxy, clock)
    assert device.read().available_mb is None and "available_mb" in device.unknown
    meminfo.write_text(text)
    clock.now += 2
    assert device.read().available_mb == 4096.0 and "available_mb" not in device.unknown


def test_cached_reading_is_cheap(tmp_path: Path) -> None:
    device = Sensors(tmp_path, period_s=1e9)
    device.read()
    began = time.process_time()
    for _ in range(1000):
        device.read()
    assert (time.process_time() - began) / 1000 < 200e-6


def test_psutil_where_there_are_no_power_supplies(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: SimpleNamespace(percent=81.46, power_plugged=True))
    reading = sensors(tree).read()
    assert (reading.battery_percent, reading.plugged, reading.sources["plugged"]) == (81.5, True, "psutil")


def test_psutil_without_temperatures(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psutil, "sensors_temperatures", raising=False)
    device = sensors(tree)
    assert device.read().cpu_c is None
    assert "no readable thermal zone of the processor" in device.unknown["cpu_c"]


def test_without_psutil(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    device = sensors(tree)
    reading = device.read()
    assert (reading.rss_mb, reading.total_mb, reading.battery_percent) == (None, None, None)
    assert device.unknown["rss_mb"] == "package not installed: psutil"


# In Termux


@pytest.mark.usefixtures("android")
def test_the_commands_answer_arrives_with_its_age(galaxy: Any, commands: Any, tmp_path: Path) -> None:
    answered = tmp_path / "answer now"
    wait = f"while [ ! -e '{answered}' ]; do sleep 0.02; done"
    commands.make("termux-battery-status", f"{wait}; cat {SHAPES}/charging_positive.json")
    clock = Clock()
    device = sensors(galaxy, clock, env=commands.env)
    assert device.read().battery_percent is None
    assert device.unknown["battery_percent"] == "not asked yet"
    answered.touch()
    reading = device.settle()
    assert (reading.battery_percent, reading.plugged, reading.charging) == (71.0, True, "charging")
    assert reading.power_w == pytest.approx(-6.23, abs=0.01)
    assert reading.battery_c == 35.1  # the zone of now, before the command's 33.4
    assert (reading.sources["plugged"], reading.sources["battery_c"]) == ("termux-battery-status", "zone battery")
    clock.now += 12
    assert device.read().ages_s["plugged"] == 12.0
    assert every_none_has_a_reason(device.read())
    assert "libandroid.so" in device.unknown["thermal_status"]
    clock.now += 200
    assert device.read().plugged is None
    assert "old" in device.unknown["plugged"]
    device.close()


@pytest.mark.usefixtures("android")
def test_a_hanging_command_costs_the_reader_nothing(galaxy: Any, commands: Any) -> None:
    commands.make("termux-battery-status", "sleep 60 & sleep 60")
    clock = Clock()
    device = sensors(galaxy, clock, env=commands.env)
    device.read()
    while not commands.started():
        time.sleep(0.01)
    took = []
    for _ in range(50):
        clock.now += 1.1  # a real reading each time
        began = time.perf_counter()
        device.read()
        took.append(time.perf_counter() - began)
    assert sorted(took)[25] < 50e-3
    began = time.monotonic()
    for _ in range(200):
        device.read()
    assert time.monotonic() - began < 5.0
    assert len(commands.started()) == 1
    began = time.monotonic()
    device.close()
    assert time.monotonic() - began < 5.0
    deadline = time.monotonic() + 5
    while commands.left() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert commands.left() == []


@pytest.mark.usefixtures("android")
def test_a_command_that_hangs_thrice_is_unknown_and_left_alone(
    galaxy: Any, commands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings.termux_battery, "TIMEOUT_S", 0.1)
    monkeypatch.setattr(readings.termux_battery, "PERIOD_S", 0.01)
    commands.make("termux-battery-status", "sleep 60")
    device = Sensors(galaxy.root, proc=galaxy.proc, sysfs=galaxy.sysfs, env=commands.env, period_s=0.0)
    deadline = time.monotonic() + 20
    while "3 times" not in device.read().unknown["plugged"] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert device.unknown["plugged"].startswith("termux-battery-status did not answer within 0.1 s (3 times in a row")
    time.sleep(0.3)
    assert len(commands.started()) == 3
    device.close()


def test_the_command_alone_is_enough_for_a_thread_that_close_ends(tree: Any, commands: Any) -> None:
    commands.make("termux-battery-status", f"cat {SHAPES}/six_keys_text.json")
    device = sensors(tree, env=commands.env)
    assert not slow_threads()  # not before somebody asks
    assert device.settle().battery_c == 31.0
    assert len(slow_threads()) == 1
    device.close()
    assert not slow_threads()
    assert device.read().battery_percent == 52.0  # growing old


def test_forgotten_sensors_end_their_thread(tree: Any, commands: Any) -> None:
    commands.make("termux-battery-status", "sleep 60")
    sensors(tree, env=commands.env).read()
    gc.collect()
    assert not slow_threads()


def test_proot_says_why_androids_thermal_service_is_out_of_reach(tree: Any) -> None:
    reading = sensors(tree, env={"TERMUX_VERSION": "0.118.3"}).read()
    assert "proot" in reading.unknown["headroom"]
    assert reading.unknown["plugged"] == "termux-battery-status is not installed"


def test_a_program_ends_at_once_and_takes_the_hanging_command_along(commands: Any, tmp_path: Path) -> None:
    commands.make("termux-battery-status", "sleep 60 & sleep 60")
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from ondevice.device.readings import Sensors\n"
        "device = Sensors(Path(sys.argv[1]))\n"
        "device.read()\n"
        "while not (Path(sys.argv[1]) / 'bin/groups').exists(): time.sleep(0.01)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=commands.env, capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "False\n", "")
    deadline = time.monotonic() + 5
    while commands.left() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert commands.left() == []


def test_a_settled_reading_of_this_machine_is_complete_and_leaves_no_thread(tmp_path: Path) -> None:
    reading = settled_reading(tmp_path)
    assert reading.available_mb and every_none_has_a_reason(reading)
    assert not slow_threads()


# Memory


def test_memory_through_psutil_where_there_is_no_proc(tmp_path: Path) -> None:
    assert memory.rss_mb(tmp_path) > 5
    found = memory.machine_memory(tmp_path)
    assert found.total_mb > found.available_mb > 0


def test_peak_is_this_process_in_mib(tree: Any) -> None:
    assert 5 < (peak_rss_mb() or 0) < 100_000
    tree.write("proc/self/status", "VmPeak:\t  999 kB\nVmHWM:\t  204800 kB\n")
    assert memory.peak_rss_mb(tree.proc) == 200.0


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("android", 1024), ("darwin", 2**20)])
def test_peak_from_getrusage_has_the_unit_of_the_platform(
    platform: str, unit: int, tree: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(resource, "getrusage", lambda _: SimpleNamespace(ru_maxrss=300 * unit))
    assert memory.peak_rss_mb(tree.proc) == 300.0


def test_peak_without_getrusage(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert memory.peak_rss_mb(tree.proc) is None


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries give memory back by themselves or not")
def test_memory_that_was_freed_goes_back_to_the_system():
    code = (
        "from ondevice.device.memory import give_back_memory, rss_mb\n"
        "blocks = [bytearray(60_000) for _ in range(2000)]\n"
        "keep = blocks[::50]\n"
        "full = rss_mb()\n"
        "del blocks\n"
        "give_back_memory()\n"
        "print(full - rss_mb())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 60
