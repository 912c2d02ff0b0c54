"""The evened duty: swings disappear, their mean stays, and a large step is taken at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.device.simulate import SimulatedPhone
from ondevice.device.simulate_profile import load_profile
from ondevice.governor.debt import Debt
from ondevice.governor.decide import decide
from ondevice.governor.history import begin, observe
from ondevice.governor.order import is_change
from ondevice.governor.steady import STEP, Steady, evened
from ondevice.run.schema import Limits


def test_a_swing_becomes_its_mean() -> None:
    steady, seen = Steady(), []
    for second in range(600):
        steady = evened(steady, 0.6 if second % 20 < 10 else 0.9, float(second))
        seen.append(steady.duty)
    assert max(seen[300:]) - min(seen[300:]) < 0.1 and sum(seen[300:]) / 300 == pytest.approx(0.75, abs=0.01)


@settings(max_examples=50)
@given(duty=st.floats(0.0, 1.0), other=st.floats(0.0, 1.0), passed_s=st.floats(0.0, 500.0))
def test_it_lies_between_and_follows_a_large_step_at_once(duty: float, other: float, passed_s: float) -> None:
    found = evened(evened(Steady(), duty, 0.0), other, passed_s).duty
    assert found is not None and min(duty, other) - 1e-12 <= found <= max(duty, other) + 1e-12
    if abs(duty - other) > STEP or other == 0.0 or passed_s > 120.0:
        assert found == other


@pytest.mark.parametrize(("ambient_c", "seed", "least_s"), [(22.0, 4, 750.0), (26.0, 3, 580.0), (30.0, 1, 420.0)])
def test_a_phone_that_its_skin_limits_gets_few_orders_and_stays_cool(
    ambient_c: float, seed: int, least_s: float
) -> None:
    profile = load_profile("galaxy-s25plus")
    phone = SimulatedPhone(profile, ambient_c=ambient_c, plugged=True, battery_percent=100.0, seed=seed)
    history, debt, told, changes, warmest_c = begin(handheld=True, battery=True, piece_s=2.0), Debt(), None, 0, 0.0
    while phone.now_s < 2400.0:
        order, history = decide(phone.read(), Limits(), history, phone.t)
        late = phone.now_s > 1200.0
        changes, told = changes + (late and is_change(told, order)), order if is_change(told, order) else told
        debt = debt.under(order)
        if order.kind == "run" and debt.due_s <= 1e-6:
            took_s = phone.work(2.0)
            history, debt = observe(history, took_s, phone.t), debt.after(took_s)
        else:
            rest_s = min(5.0, debt.due_s) if order.kind == "run" else 5.0
            phone.advance(rest_s, duty=0.0)
            debt = debt.rested(rest_s)
        warmest_c = max(warmest_c, phone.network.temperature("chassis"))
    assert changes <= 2 and warmest_c <= 43.1
    assert phone.worked_s >= least_s
