"""What doctor says of sensors: values with source and age, gaps with reason and remedy, at every kind of machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from ondevice.cli.doctor_sensors import Gap, gaps, readable, without_temperature
from ondevice.device.facts import DeviceFacts, Termux, read_facts
from ondevice.device.readings import NAMES, Reading, Sensors

API = "pkg upgrade && pkg install termux-api"
PHONE_READING = Reading(
    t=0.0,
    cpu_c=61.7,
    battery_percent=71.0,
    plugged=True,
    charging="charging",
    battery_c=35.1,
    power_w=-6.23,
    skin_c=37.2,
    thermal_status=2,
    headroom=0.8125,
    freq_share=0.5,
    screen_on=False,
    sources={
        "cpu_c": "zone cpuss-1-0",
        "battery_c": "zone battery",
        "skin_c": "zone sys-therm-0",
        "freq_share": "cpufreq",
        "screen_on": "backlight",
        **dict.fromkeys(("battery_percent", "plugged", "charging", "power_w"), "termux-battery-status"),
        **dict.fromkeys(("thermal_status", "headroom"), "Android"),
    },
    ages_s={"cpu_c": 0.0, "battery_percent": 12.3, "plugged": 12.3, "thermal_status": 25.0},
)


@pytest.fixture(scope="module")
def laptop() -> DeviceFacts:
    return dataclasses.replace(read_facts(), platform="linux", termux=None, proot=False)


@pytest.fixture(scope="module")
def phone(laptop: DeviceFacts) -> DeviceFacts:
    return dataclasses.replace(laptop, platform="android", termux=Termux("0.118.3", "fdroid"))


def unknown(**reasons: str) -> Reading:
    return Reading(t=0.0, unknown=reasons)


def about(found: list[Gap], words: str) -> Gap:
    matches = [gap for gap in found if words in gap.text]
    assert len(matches) == 1, [gap.text for gap in found]
    return matches[0]


def test_values_come_with_source_and_age(phone: DeviceFacts) -> None:
    assert list(readable(PHONE_READING)) == [
        "Processor 62 C (zone cpuss-1-0)",
        "Battery 71 %, plugged in, charging, 35.1 C, 6.2 W charged (termux-battery-status, 12 s ago; zone battery)",
        "Body 37 C (zone sys-therm-0)",
        "Thermal status 2 of 6, moderate, headroom 0.81 (1 is severe) (Android, 25 s ago)",
        "Fastest cores at 50 % of their top speed (cpufreq)",
        "Screen off (backlight)",
    ]
    assert list(gaps(phone, PHONE_READING)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"plugged": False, "charging": "discharging", "power_w": 3.2}, "71 %, on battery, 35.1 C, 3.2 W drawn"),
        ({"charging": "not_charging", "power_w": 0.0}, "71 %, plugged in, not charging, 35.1 C ("),
        ({"plugged": None, "charging": None, "battery_c": None, "power_w": None}, "71 %, power unknown ("),
        ({"battery_percent": None}, "Battery 35.1 C (zone battery)"),
    ],
)
def test_the_battery_in_words(changes: dict[str, Any], words: str) -> None:
    assert words in "\n".join(readable(dataclasses.replace(PHONE_READING, **changes)))


def test_nothing_is_readable() -> None:
    assert list(readable(Reading(t=0.0))) == []


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("termux-battery-status is not installed", "Termux:API app from where Termux itself came from"),
        ("termux-battery-status did not answer within 6 s", "battery optimisation"),
        ("termux-battery-status did not answer within 6 s (3 times in a row; asked again ...)", "open it once"),
        ("termux-battery-status failed: killed by SIGSEGV", "newest version"),
        ("termux-battery-status printed no JSON object", "newest version"),
    ],
)
def test_a_termux_battery_that_fails_has_a_remedy(reason: str, words: str, phone: DeviceFacts) -> None:
    gap = about(list(gaps(phone, unknown(battery_percent=reason, plugged=reason))), "No battery is readable")
    assert reason in gap.text
    assert words in (gap.remedy or "") and (gap.remedy or "").startswith("Install the Termux:API app")
    assert gap.command == API


def test_in_proot_the_remedy_is_outside(phone: DeviceFacts) -> None:
    proot = dataclasses.replace(phone, platform="linux", proot=True)
    reading = unknown(battery_percent="termux-battery-status is not installed", thermal_status="not inside proot")
    found = list(gaps(proot, reading))
    assert (about(found, "No battery").remedy or "").startswith("In Termux, outside proot: install")
    assert about(found, "thermal status").remedy == "Native Termux may have it."


def test_a_mains_powered_machine_needs_no_remedy(laptop: DeviceFacts) -> None:
    reading = unknown(battery_percent="no battery found", plugged="no battery found", thermal_status="only Android")
    found = list(gaps(laptop, reading))
    assert not [gap for gap in found if "attery" in gap.text]
    assert list(readable(reading)) == ["No battery: this machine lives on the mains"]
    assert without_temperature(laptop, reading) == ""
    assert not any("Android" in gap.text or "Also unknown" in gap.text for gap in found)


def test_lesser_gaps_share_a_line_by_reason(phone: DeviceFacts) -> None:
    reading = dataclasses.replace(
        PHONE_READING,
        power_w=None,
        skin_c=None,
        screen_on=None,
        unknown={"power_w": "tells no voltage", "skin_c": "denied", "screen_on": "denied"},
    )
    assert [gap.text for gap in gaps(phone, reading)] == [
        "Also unknown: power drawn (tells no voltage); temperature of the body, screen (denied)."
    ]


def test_every_unknown_of_an_empty_machine_is_told(tmp_path: Path, phone: DeviceFacts) -> None:
    env = {"TERMUX_VERSION": "0.118.3"}
    reading = Sensors(tmp_path, proc=tmp_path / "proc", sysfs=tmp_path / "sys", env=env).read()
    text = " ".join(gap.text for gap in gaps(phone, reading))
    unknown = set(NAMES) & set(reading.unknown) - {"battery_c"}
    assert unknown
    for name in unknown:
        assert reading.unknown[name] in text, name


def test_what_it_means_that_no_heat_can_be_read(laptop: DeviceFacts, phone: DeviceFacts) -> None:
    assert "so a run works at most 50 % of the time" in without_temperature(phone, Reading(t=0.0, plugged=True))
    assert "so while on battery" in without_temperature(laptop, Reading(t=0.0))
    assert "In a room warmer than 25 C" in without_temperature(phone, Reading(t=0.0))
    assert "In a room" not in without_temperature(laptop, Reading(t=0.0))
    assert without_temperature(phone, Reading(t=0.0, battery_c=30.0)) == ""
