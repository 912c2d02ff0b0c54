"""Thermometers: which zone is what, which unit it speaks, and what is no temperature."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from ondevice.device import thermal
from ondevice.device.thermal import Thermometers, celsius


class Clock:
    """Time that moves when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _no_sensors_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_temperatures", dict, raising=False)


def values(tree: Any) -> dict[str, Any]:
    return Thermometers(tree.sysfs).read().values


@pytest.mark.parametrize(
    ("raw", "expected"),
    [(45200, 45.2), (452, 45.2), (45, 45.0), (0, None), (-40000, None), (999999, None), (150000, 150.0), (1, 1.0)],
)
def test_units_are_guessed(raw: int, expected: float | None) -> None:
    assert celsius(raw) == expected


@pytest.mark.parametrize(("raw", "expected"), [(351, 35.1), (27600, 27.6), (28, 28.0), (95, 9.5), (120000, None)])
def test_a_battery_is_never_hotter_than_ninety(raw: int, expected: float | None) -> None:
    assert celsius(raw, most_c=90) == expected


def test_docstring_example() -> None:
    assert (celsius(45200), celsius(452), celsius(45), celsius(-40000)) == (45.2, 45.2, 45.0, None)
    assert thermal.celsius.__doc__ and ">>>" in thermal.celsius.__doc__


# Types as phones list them, and what must come of them.
PHONES: dict[str, tuple[list[tuple[str, str]], dict[str, float]]] = {
    "snapdragon": (
        [
            ("aoss-0", "41000"),
            ("cpuss-0-0", "52300"),
            ("cpuss-1-0", "61700"),
            ("gpuss-0", "88000"),
            ("mdmss-0", "55000"),
            ("sys-therm-0", "37250"),
            ("sys-therm-5", "60000"),
            ("battery", "35100"),
            ("soc", "71"),
            ("pm8550b-vbat-lvl0", "3987"),
            ("pm8550b-ibat-lvl0", "1530"),
            ("pm8550b-bcl-lvl0", "100"),
            ("xo-therm", "42000"),
        ],
        {"cpu_c": 61.7, "battery_c": 35.1, "skin_c": 37.2},
    ),
    "mediatek": (
        [
            ("mtktscpu", "49000"),
            ("mtktsbattery", "25000"),
            ("mtktspa", "-127000"),
            ("mtktsAP", "40000"),
            ("mtktsbtsmdpa", "38600"),
        ],
        {"cpu_c": 49.0, "battery_c": 25.0, "skin_c": 40.0},
    ),
    "tensor": (
        [
            ("BIG", "58000"),
            ("MID", "51000"),
            ("LITTLE", "49000"),
            ("G3D", "70000"),
            ("battery", "31000"),
            ("quiet_therm", "39000"),
            ("VIRTUAL-SKIN", "36500"),
            ("VIRTUAL-SKIN-CPU-LIGHT-ODPM", "89000"),
            ("VIRTUAL-SKIN-CHARGE", "80000"),
        ],
        {"cpu_c": 58.0, "battery_c": 31.0, "skin_c": 36.5},
    ),
    "kirin": (
        [("cluster0", "45"), ("cluster2", "55"), ("Battery", "33"), ("shell_back", "34"), ("shell_front", "35")],
        {"cpu_c": 55.0, "battery_c": 33.0, "skin_c": 35.0},
    ),
    "laptop": ([("acpitz", "27800"), ("x86_pkg_temp", "64000"), ("iwlwifi_1", "51000")], {"cpu_c": 64.0}),
    "board": ([("soc-thermal", "48000"), ("gpu-thermal", "60000")], {"cpu_c": 48.0}),
    "none": ([("usb", "30000"), ("charger-skin", "30000"), ("cpu-off", "0")], {}),
}


@pytest.mark.parametrize("phone", PHONES)
def test_zones_by_their_type(phone: str, tree: Any) -> None:
    zones, expected = PHONES[phone]
    for number, (kind, temp) in enumerate(zones):
        tree.zone(number, kind, temp)
    answer = Thermometers(tree.sysfs).read()
    assert answer.values == expected
    assert set(answer.sources) == set(expected)
    assert set(answer.unknown) == {"cpu_c", "battery_c", "skin_c"} - set(expected)


def test_the_source_is_the_zone_that_was_hottest(galaxy: Any) -> None:
    assert Thermometers(galaxy.sysfs).read().sources == {"cpu_c": "zone cpu-1-1-0", "battery_c": "zone battery"}


def test_a_unit_once_seen_holds(tree: Any) -> None:
    tree.zone(0, "battery", "281")
    thermometers = Thermometers(tree.sysfs)
    assert thermometers.read().values["battery_c"] == 28.1
    tree.zone(0, "battery", "52")
    assert thermometers.read().values["battery_c"] == 5.2


def test_core_zones_before_psutil_before_chip_zones(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.zone(0, "acpitz", "27800")
    assert values(tree) == {"cpu_c": 27.8}
    entries = [SimpleNamespace(current=51.0), SimpleNamespace(current=53.5)]
    monkeypatch.setattr(psutil, "sensors_temperatures", lambda: {"k10temp": entries, "nvme": entries})
    answer = Thermometers(tree.sysfs).read()
    assert (answer.values["cpu_c"], answer.sources["cpu_c"]) == (53.5, "psutil k10temp")
    tree.zone(1, "x86_pkg_temp", "64000")
    assert values(tree) == {"cpu_c": 64.0}


def test_a_new_zone_is_found_after_a_minute_and_a_lost_one_at_once_when_it_returns(tree: Any) -> None:
    clock = Clock()
    thermometers = Thermometers(tree.sysfs, clock=clock)
    assert thermometers.read().values == {}
    tree.zone(0, "cpu-0", "40000")
    assert thermometers.read().values == {}
    clock.now += 61
    assert thermometers.read().values == {"cpu_c": 40.0}
    tree.zone(0, "cpu-0", "-40000")
    assert thermometers.read().values == {}
    tree.zone(0, "cpu-0", "41000")
    assert thermometers.read().values == {"cpu_c": 41.0}


def test_types_are_listed_ever_more_seldom(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, asked = Clock(), []
    tree.zone(0, "usb", "30000")
    monkeypatch.setattr(thermal, "_kind", lambda zone: asked.append(zone) or "usb")
    thermometers = Thermometers(tree.sysfs, clock=clock)
    for _ in range(3600):
        thermometers.read()
        clock.now += 1
    assert 5 <= len(asked) <= 7  # at 0, 1, 3, 7, 15, 31 minutes


def test_a_zone_with_a_denied_type_is_skipped(galaxy: Any, denied: Callable[[Path], None]) -> None:
    denied(galaxy.sysfs / "class/thermal/thermal_zone1/type")
    assert values(galaxy)["cpu_c"] == 45.2


def test_a_denied_folder_is_the_reason(galaxy: Any, denied: Callable[[Path], None]) -> None:
    denied(galaxy.sysfs)
    answer = Thermometers(galaxy.sysfs).read()
    assert answer.values == {}
    assert "permission denied" in answer.unknown["cpu_c"] and "of the processor" in answer.unknown["cpu_c"]


@pytest.mark.usefixtures("android")
def test_psutil_is_not_asked_on_android(tree: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise AssertionError

    monkeypatch.setattr(psutil, "sensors_temperatures", refuse)
    assert values(tree) == {}
