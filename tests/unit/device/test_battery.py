"""The battery of a laptop or an open phone, and the rules for currents, voltages and temperatures."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from ondevice.device.answer import Answer
from ondevice.device.battery import NAMES, battery_celsius, from_psutil, from_sysfs, percent, volts, watts_drawn

BAT0 = {
    "status": "Discharging",
    "capacity": 81,
    "energy_full": 50_000_000,
    "power_now": 7_300_000,
    "voltage_now": 11_400_000,
    "temp": 312,
    "present": 1,
}


def read(tree: Any) -> Answer:
    answer = from_sysfs(tree.sysfs)
    assert set(answer.values) | set(answer.unknown) == set(NAMES)
    assert set(answer.sources) == set(answer.values)
    return answer


def test_a_laptop_on_battery(tree: Any) -> None:
    tree.supply("BAT0", **BAT0)
    tree.supply("AC", type="Mains", online=0)
    assert read(tree).values == {
        "battery_percent": 81.0,
        "plugged": False,
        "charging": "discharging",
        "battery_c": 31.2,
        "power_w": 7.3,
    }


@pytest.mark.parametrize(
    ("status", "charging", "power_w"),
    [("Charging", "charging", -7.3), ("Full", "full", None), ("Not charging", "not_charging", None)],
)
def test_plugged_in_by_usb(tree: Any, status: str, charging: str, power_w: float | None) -> None:
    tree.supply("BAT0", **BAT0 | {"status": status})
    tree.supply("AC", type="Mains", online=0, present=0)
    tree.supply("ucsi-source-psy-USBC000:001", type="USB", online=1, scope="System")
    answer = read(tree)
    assert (answer.values["plugged"], answer.values["charging"]) == (True, charging)
    assert answer.values.get("power_w") == power_w
    if power_w is None:
        assert "a current flows" in answer.unknown["power_w"]


def test_a_full_battery_at_rest_draws_nothing(tree: Any) -> None:
    tree.supply("BAT0", **BAT0 | {"status": "Full", "power_now": 0})
    assert read(tree).values["power_w"] == 0.0


def test_current_and_voltage_where_there_is_no_power(tree: Any) -> None:
    tree.supply("BAT0", status="Discharging", capacity=50, current_now=-1_500_000, voltage_now=12_000_000)
    answer = read(tree)
    assert (answer.values["power_w"], answer.values["plugged"]) == (18.0, False)
    assert answer.unknown == {"battery_c": "the battery does not tell it"}


def test_two_batteries_are_one(tree: Any) -> None:
    tree.supply("BAT0", **BAT0 | {"status": "Unknown", "power_now": 0, "capacity": 100, "energy_full": 20_000_000})
    tree.supply("BAT1", **BAT0 | {"capacity": 40, "energy_full": 60_000_000, "temp": 350})
    values = read(tree).values
    assert (values["battery_percent"], values["charging"]) == (55.0, "discharging")
    assert (values["battery_c"], values["power_w"]) == (35.0, 7.3)


def test_mice_and_empty_bays_are_no_batteries(tree: Any) -> None:
    tree.supply("hidpp_battery_0", scope="Device", status="Discharging", capacity=20, online=1)
    tree.supply("BAT1", present=0, capacity=0)
    with pytest.raises(LookupError, match="no battery found"):
        from_sysfs(tree.sysfs)
    tree.supply("BAT0", **BAT0)
    assert read(tree).values["battery_percent"] == 81.0


def test_androids_own_battery_is_counted_once(tree: Any) -> None:
    tree.supply("battery", **BAT0)
    tree.supply("maxfg", **BAT0)
    assert read(tree).values["power_w"] == 7.3


def test_drivers_that_do_not_tell(tree: Any) -> None:
    tree.supply("BAT0", status="Unknown", capacity=255, temp=0)
    answer = read(tree)
    assert answer.values == {}
    assert answer.unknown["power_w"] == "the battery tells no current"


def test_without_the_folder(tree: Any) -> None:
    with pytest.raises(FileNotFoundError):
        from_sysfs(tree.sysfs)


@pytest.mark.parametrize(
    ("current", "voltage", "charging", "watts"),
    [
        (-812_000, 4000, "discharging", 3.25),  # uA and mV, as documented
        (812_000, 4000, "discharging", 3.25),  # the other sign
        (1530, 4000, "discharging", 6.12),  # mA
        (-1530, 4_000_000, "charging", -6.12),  # mA and uV
        (6_000_000, 8400, "charging", -50.4),  # a fast charger, two cells
        (9_000, 4000, "discharging", 0.04),  # 36 W is no phone: uA
        (100, 4000, None, 0.0),
        (0, 4, "full", 0.0),  # volts
        (-3000, 4200, "not_charging", None),  # 12 W, and nobody knows which way
        (90_000_000, 4000, "discharging", None),
        (-812_000, -1000, "discharging", None),
        (-812_000, 0, "discharging", None),
    ],
)
def test_watts(current: float, voltage: float, charging: str | None, watts: float | None) -> None:
    if watts is None:
        with pytest.raises(LookupError):
            watts_drawn(current, voltage, charging, most_drawn_w=20.0)
    else:
        assert watts_drawn(current, voltage, charging, most_drawn_w=20.0) == pytest.approx(watts, abs=0.01)


def test_single_values() -> None:
    assert [percent(value) for value in (0, 100, 101, -1, None)] == [0, 100, None, None, None]
    told = (31.7000007, -7.5, 0.0, -214748364.8, 120, None)
    assert [battery_celsius(value) for value in told] == [31.7, -7.5, None, None, None, None]
    assert [volts(value) for value in (3987, 3_987_000, 4)] == [3.987, 3.987, 4.0]


@pytest.mark.parametrize(
    ("battery", "expected"),
    [
        (SimpleNamespace(percent=81.46, power_plugged=True), {"battery_percent": 81.5, "plugged": True}),
        (SimpleNamespace(percent=50, power_plugged=None), {"battery_percent": 50.0}),
        (SimpleNamespace(percent=-1, power_plugged=False), {"plugged": False}),
    ],
)
def test_psutil(battery: Any, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "sensors_battery", lambda: battery, raising=False)
    answer = from_psutil()
    assert answer.values == expected
    assert set(answer.unknown) == set(NAMES) - set(expected)
