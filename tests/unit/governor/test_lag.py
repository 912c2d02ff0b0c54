"""How late heat arrives at a sensor: told by long pieces, left alone by short ones, doubted less once it is known."""

from __future__ import annotations

import random
from dataclasses import replace
from math import exp, sqrt

import pytest

from ondevice.governor.node import Node, advanced, corrected, doubted, first_seen
from ondevice.governor.signals import BATTERY, FINER

SMALL = FINER.bodies[0]
SPANS = [(25.0, 1.0), (7.0, 0.0), (2.0, 0.4), (60.0, 0.0)]


def bare(lag_s: float) -> Node:
    """Nothing is unknown of it but the lag, by one second."""
    node = first_seen(30.0, 0.0, SMALL, 0.3)
    return replace(node, lag_s=lag_s, idle_c=24.0, tt=0.0, ee=0.0, bb=0.0, ll=1.0)


@pytest.mark.parametrize("spans", [SPANS[:1], SPANS[:2], SPANS])
@pytest.mark.parametrize("lag_s", [8.0, 14.0, 26.0])
def test_what_a_longer_lag_would_do_is_the_difference_that_it_does(
    lag_s: float, spans: list[tuple[float, float]]
) -> None:
    step_s = 1e-4
    node = advanced(bare(lag_s), SMALL, spans)
    before, after = (advanced(bare(lag_s + way * step_s), SMALL, spans) for way in (-1, 1))
    assert node.tl == pytest.approx((after.temp_c - before.temp_c) / (2 * step_s), rel=1e-5, abs=1e-9)
    assert node.late == pytest.approx((after.heat - before.heat) / (2 * step_s), rel=1e-5, abs=1e-9)


def watched(*, lag_s: float, warming: float, work_s: int, rest_s: int, apart: bool) -> Node:
    """The estimate of a body with that lag after 40 minutes, by fine samples every 10 s."""
    dice, temp_c, heat = random.Random(2), 30.0, 0.0
    node, spans = first_seen(temp_c, 0.0, SMALL, 0.0), []
    node = doubted(node, SMALL) if apart else node
    for second in range(2400):
        load = float(second % (work_s + rest_s) < work_s)
        heat += (load - heat) * (1 - exp(-1 / lag_s))
        temp_c += (30.0 - temp_c) / SMALL.tau_s + warming * heat
        spans.append((1.0, load))
        if second % 10 == 9:
            sample_c = round(temp_c + dice.gauss(0.0, 0.09), 2)
            node, spans = corrected(advanced(node, SMALL, spans), SMALL, sample_c, apart=apart), []
    return node


@pytest.mark.parametrize("lag_s", [10.0, 14.0, 20.0])
def test_long_pieces_tell_the_lag_and_the_warming(lag_s: float) -> None:
    node = watched(lag_s=lag_s, warming=0.17, work_s=25, rest_s=130, apart=True)
    assert node.lag_s == pytest.approx(lag_s, abs=1.0)
    assert node.warming == pytest.approx(0.17, rel=0.04)
    assert sqrt(node.ll) < 0.25 * SMALL.lag_sd


def test_short_pieces_leave_it_alone() -> None:
    node = watched(lag_s=20.0, warming=0.17, work_s=2, rest_s=12, apart=False)
    assert node.lag_s == SMALL.lag_s and node.ll == 0.0


def test_a_lag_that_is_known_makes_the_heat_on_its_way_certain() -> None:
    new = replace(bare(14.0), ll=SMALL.lag_sd**2)
    known = replace(new, ll=(0.1 * SMALL.lag_sd) ** 2)
    unsure, sure = (sqrt(advanced(node, SMALL, [(25.0, 1.0), (14.0, 0.0)]).tt) for node in (new, known))
    assert sure < 0.4 * unsure


def test_no_sample_makes_a_lag_of_nothing() -> None:
    node = replace(first_seen(30.0, 0.0, BATTERY.bodies[0], 0.0), tl=-0.5, tt=0.5)
    for sample_c in (90.0, -20.0):
        found = corrected(node, BATTERY.bodies[0], sample_c, apart=True)
        assert 0.5 * node.lag_s <= found.lag_s <= 2 * node.lag_s
