"""Readings: units, unreadable sensors, and the price of asking."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from ondevice.device import memory, thermal
from ondevice.device.readings import Reading, Sensors, peak_rss_mb
from ondevice.device.thermal import CpuThermometer, celsius


class Clock:
    """Time that moves when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _no_sensors_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_temperatures", dict, raising=False)
    monkeypatch.setattr(psutil, "sensors_battery", lambda: None, raising=False)


def sensors(tree: Any, clock: Clock | None = None) -> Sensors:
    return Sensors(tree.root, proc=tree.proc, sysfs=tree.sysfs, clock=clock or Clock())


@pytest.mark.usefixtures("android")
def test_galaxy(galaxy: Any) -> None:
    galaxy.write("proc/self/statm", "90000 25600 9000 1 0 0 0\n")
    reading = sensors(galaxy).read()
    assert (reading.total_mb, reading.available_mb) == (11264.0, 4096.0)
    assert reading.rss_mb == round(25600 * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
    assert reading.cpu_c == 61.7  # the hottest core; not the GPU, the battery or the zone that is off
    assert reading.disk_free_mb is not None
    assert abs(reading.t - time.time()) < 60
    json.dumps(reading.to_json(), allow_nan=False)


@pytest.mark.usefixtures("android")
def test_everything_denied(galaxy: Any, denied: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/sys/class/power_supply")

    galaxy.write("proc/self/statm", "1 1 1\n")
    denied(galaxy.root)
    monkeypatch.setattr(psutil, "sensors_battery", refuse)
    monkeypatch.setattr(os, "statvfs", refuse)
    device = sensors(galaxy)
    reading = device.read()
    assert reading == Reading(t=reading.t)
    assert device.unknown["battery_percent"] == "permission denied: /sys/class/power_supply"
    assert set(device.unknown) == {"available_mb", "battery_percent", "cpu_c", "disk_free_mb", "rss_mb"}


def test_reads_at_most_once_a_period(galaxy: Any) -> None:
    clock = Clock()
    device = sensors(galaxy, clock)
    first = device.read()
    clock.now += 0.9
    assert device.read() is first
    clock.now += 0.2
    assert device.read() is not first


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
    began = time.perf_counter()
    for _ in range(1000):
        device.read()
    assert (time.perf_counter() - began) / 1000 < 100e-6


@pytest.mark.parametrize(
    ("battery", "expected"),
    [
        (SimpleNamespace(percent=81.46, power_plugged=True), (81.5, True)),
        (SimpleNamespace(percent=50, power_plugged=None), (50.0, None)),
        (SimpleNamespace(percent=-1, power_plugged=False), (None, False)),
        (None, (None, None)),
    ],
)
def test_battery(battery: Any, expected: tuple[Any, Any], tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery)
    reading = sensors(tree).read()
    assert (reading.battery_percent, reading.plugged) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(45200, 45.2), (452, 45.2), (45, 45.0), (0, None), (-40000, None), (999999, None), (150000, 150.0), (1, 1.0)],
)
def test_units_are_guessed(raw: int, expected: float | None) -> None:
    assert celsius(raw) == expected


def test_core_zones_before_psutil_before_chip_zones(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.zone(0, "acpitz", "27800")
    assert CpuThermometer(tree.sysfs).read() == 27.8
    entries = [SimpleNamespace(current=51.0), SimpleNamespace(current=53.5)]
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: {"k10temp": entries, "nvme": entries})
    assert CpuThermometer(tree.sysfs).read() == 53.5
    tree.zone(1, "x86_pkg_temp", "64000")
    assert CpuThermometer(tree.sysfs).read() == 64.0


def test_a_lost_sensor_is_searched_again_after_a_minute(tree: Any) -> None:
    clock = Clock()
    thermometer = CpuThermometer(tree.sysfs, clock=clock)
    with pytest.raises(LookupError):
        thermometer.read()
    tree.zone(0, "cpu-0", "40000")
    with pytest.raises(LookupError):
        thermometer.read()
    clock.now += 61
    assert thermometer.read() == 40.0
    tree.zone(0, "cpu-0", "-40000")
    with pytest.raises(LookupError):
        thermometer.read()


def test_a_zone_with_a_denied_type_is_skipped(galaxy: Any, denied: Callable[[Path], None]) -> None:
    denied(galaxy.sysfs / "class/thermal/thermal_zone1/type")
    assert CpuThermometer(galaxy.sysfs).read() == 45.2


def test_psutil_without_temperatures(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(psutil, "sensors_temperatures", raising=False)
    device = sensors(tree)
    assert device.read().cpu_c is None
    assert device.unknown["cpu_c"] == "no readable thermal zone of the processor"


def test_without_psutil(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    device = sensors(tree)
    reading = device.read()
    assert (reading.rss_mb, reading.total_mb, reading.battery_percent) == (None, None, None)
    assert device.unknown["rss_mb"] == "package not installed: psutil"


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


def test_docstring_example() -> None:
    assert (celsius(45200), celsius(452), celsius(45), celsius(-40000)) == (45.2, 45.2, 45.0, None)
    assert thermal.celsius.__doc__ and ">>>" in thermal.celsius.__doc__


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
