"""A battery that cannot be read is felt through the processor: the fit, and the limit it keeps in a loop."""

from __future__ import annotations

import random
from math import exp

import pytest

from ondevice.device.simulate import SimulatedPhone
from ondevice.device.simulate_sensors import SensorKind
from ondevice.governor.debt import Debt
from ondevice.governor.decide import decide
from ondevice.governor.history import begin, observe
from ondevice.governor.sounding import REST_S, Sounding, felt, sounded
from ondevice.run.schema import Limits


@pytest.mark.parametrize("fade_s", [9.0, 13.5, 22.5])
def test_the_base_of_a_cooling_processor_is_found_and_not_thought_much_too_cool(fade_s: float) -> None:
    """One that cools a third faster than believed costs a little over a degree, where it began twenty degrees above."""
    dice, bases = random.Random(4), []
    for _ in range(20):
        sounding, told = Sounding(), None
        for second in range(int(REST_S) + 1):
            sounding = sounded(
                sounding, 38.0 + 20.0 * exp(-second / fade_s) + dice.gauss(0, 0.3), 100.0 + second, 100.0, fade_s=13.5
            )
            base, sounding = felt(sounding)
            told = base if base is not None else told
        assert told is not None
        bases.append(told)
    mean = sum(bases) / len(bases)
    assert 36.5 < mean < 38.0 + 0.3 * fade_s


def test_the_shorter_the_excess_is_taken_to_last_the_warmer_the_base() -> None:
    found = {}
    for fade_s in (12.0, 15.0, 20.0):
        sounding = Sounding()
        for second in range(int(REST_S) + 1):
            sounding = sounded(sounding, 38.0 + 10.0 * exp(-second / 15.0), 100.0 + second, 100.0, fade_s=fade_s)
        found[fade_s], _ = felt(sounding)
    assert found[12.0] > found[15.0] > found[20.0]
    assert found[15.0] == pytest.approx(38.0, abs=0.2)


def test_a_short_rest_tells_nothing() -> None:
    sounding = Sounding()
    for second in range(18):
        sounding = sounded(sounding, 40.0, 100.0 + second, 100.0, fade_s=15.0)
        base, sounding = felt(sounding)
        assert base is None


@pytest.mark.parametrize(("ambient_c", "left"), [(28.0, "cpu_c"), (34.0, "cpu_c"), (28.0, "skin_c")])
def test_the_batterys_limit_is_kept_though_only_another_part_can_be_read(ambient_c: float, left: str) -> None:
    lost = frozenset({"battery_c", "headroom", "thermal_status", "cpu_c", "skin_c"} - {left})
    phone = SimulatedPhone("galaxy-s25plus", ambient_c=ambient_c, battery_percent=100, sensors=SensorKind(lost=lost))
    limits = Limits(preset="balanced", max_battery_c=40.0, max_skin_c=70.0, max_cpu_c=110.0)
    history, debt, hottest_c = begin(handheld=True, battery=True, piece_s=2.0), Debt(), 0.0
    while phone.now_s < 2400.0:
        order, history = decide(phone.read(), limits, history, phone.t)
        debt = debt.under(order)
        if order.kind != "run" or debt.due_s > 1e-3:
            rest_s = 2.0 if order.kind != "run" else min(2.0, debt.due_s)
            phone.advance(rest_s, duty=0.0)
            debt = debt.rested(rest_s)
            continue
        piece_s = phone.work(2.0)
        hottest_c = max(hottest_c, phone.truth.battery_c)
        history, debt = observe(history, piece_s, phone.t), debt.after(piece_s)
    assert hottest_c <= 40.3
    assert phone.worked_s >= 0.5 * (40.0 - ambient_c) / 38.0 * 2400.0
