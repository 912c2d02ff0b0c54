"""Rests that are owed: the share that was ordered, gathered into rests of some length, reckoned anew while resting."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.governor.debt import LONGEST_CREDIT_S, LONGEST_DEBT_S, Debt
from ondevice.governor.order import Order


def carried_out(order: Order, pieces_s: list[float]) -> tuple[float, list[float], Debt]:
    """Seconds of work, each rest, and what is left."""
    debt, rests_s, worked_s = Debt(), [], 0.0
    for piece_s in pieces_s:
        worked_s += piece_s
        debt = debt.after(piece_s).under(order)
        rest_s = 0.0
        while debt.due_s > 1e-9:
            slice_s = min(2.0, debt.due_s)
            debt, rest_s = debt.rested(slice_s).under(order), rest_s + slice_s
        if rest_s:
            rests_s.append(rest_s)
    return worked_s, rests_s, debt


@settings(max_examples=40, deadline=None)
@given(duty=st.floats(0.2, 0.95), least_s=st.sampled_from([0.0, 10.0, 30.0]), piece_s=st.floats(0.05, 4.0))
def test_work_is_the_share_that_was_ordered_and_rests_are_long_enough(
    duty: float, least_s: float, piece_s: float
) -> None:
    worked_s, rests_s, debt = carried_out(Order(duty=duty, rest_s=least_s), [piece_s] * 100)
    assert worked_s / (worked_s + sum(rests_s) + debt.owed_s) == pytest.approx(duty, rel=1e-6)
    assert all(rest_s >= least_s - 1e-6 for rest_s in rests_s)
    assert debt.owed_s < least_s + 1e-6


def test_a_new_order_counts_at_once_while_resting() -> None:
    debt = Debt().after(10.0).under(Order(duty=0.5))
    assert debt.due_s == pytest.approx(10.0)
    debt = debt.rested(4.0).under(Order(duty=0.25))
    assert debt.due_s == pytest.approx(26.0)
    assert debt.under(Order(duty=1.0)).due_s == 0.0


def test_neither_debt_nor_credit_lasts_for_ever() -> None:
    debt = Debt().after(1000.0).under(Order(duty=0.1))
    assert debt.due_s == LONGEST_DEBT_S
    assert debt.rested(5000.0).under(Order(duty=0.1)).owed_s == -LONGEST_CREDIT_S


def test_a_hotter_hour_does_not_charge_for_the_cool_one_before_it() -> None:
    debt = Debt()
    for _ in range(500):
        debt = debt.after(2.0).under(Order(duty=0.999, rest_s=10.0))
    assert debt.owed_s == pytest.approx(1000.0 * 0.001 / 0.999)
    debt = debt.after(2.0).under(Order(duty=0.5, rest_s=10.0))
    assert debt.owed_s == pytest.approx(1.0 + 2.0, rel=0.01)


def test_work_that_nobody_priced_waits_for_its_order() -> None:
    debt = Debt().after(3.0).after(4.0).under(Order(duty=0.5))
    assert debt.owed_s == pytest.approx(7.0)


def test_a_rest_told_in_seconds_is_taken_as_told_however_long_the_piece_was() -> None:
    debt = Debt().after(27.0).under(Order(duty=0.2, left_s=100.0))
    assert debt.due_s == 100.0
    debt = debt.rested(100.0).under(Order(duty=0.2, left_s=0.0))
    assert debt.due_s == 0.0
    assert Debt().after(25.0).rested(600.0).under(Order(duty=0.03, left_s=90.0)).due_s == 90.0
