"""Another number of threads: the past foretells what it did before, and full work counts for as many cores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ondevice.device.readings import Reading
from ondevice.governor.decide import decide
from ondevice.governor.heat import Heat
from ondevice.governor.history import History, begin, observe, refitted
from ondevice.governor.node import advanced, corrected, first_seen
from ondevice.governor.rescale import rescaled_heat, rescaled_work
from ondevice.governor.signals import SIGNALS
from ondevice.governor.threads import Wish
from ondevice.governor.work import Work, loads
from ondevice.run.schema import Limits

BATTERY = SIGNALS[0]
LIMITS = Limits(preset="balanced", max_battery_c=39.0)
MORE, FEWER = Wish(kind="more", why="cool", threads=4), Wish(kind="fewer", why="hot", threads=1)


@pytest.mark.parametrize("factor", [0.5, 2.0, 4.0])
def test_the_past_foretells_the_same_temperature(factor: float) -> None:
    traits = BATTERY.bodies[0]
    node = advanced(first_seen(30.0, 0.0, traits, 0.4), traits, [(60.0, 0.8)])
    work = Work(begin_t=0.0, spans=((30.0, 1.0, 0.8), (90.0, 0.3, 0.3), (120.0, 1.0, 1.0)))
    heat = rescaled_heat(Heat(nodes={"battery_c": (node,)}), factor)
    (scaled,) = heat.nodes["battery_c"]
    before = advanced(node, traits, loads(work, 0.0, 120.0, 0.0))
    after = advanced(scaled, traits, loads(rescaled_work(work, factor), 0.0, 120.0, 0.0))
    assert after.temp_c == pytest.approx(before.temp_c, abs=1e-9)
    assert after.warming == pytest.approx(factor * before.warming)
    assert scaled.bb > factor**2 * node.bb
    assert after.tl == pytest.approx(advanced(node, traits, loads(work, 0.0, 120.0, 0.0)).tl)


@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_what_is_taken_up_of_a_quickly_warming_processor_stays_possible(factor: float) -> None:
    """The guess makes its warming as uncertain as no drift could: no later sample may take more doubt than there is."""
    (traits,) = SIGNALS[3].bodies
    node = replace(first_seen(40.0, 0.0, traits, 0.5), warming=4 * traits.warming)
    for _ in range(30):
        node = corrected(advanced(node, traits, [(10.0, 0.5)]), traits, 60.0)
    (node,) = rescaled_heat(Heat(nodes={"cpu_c": (node,)}), factor).nodes["cpu_c"]
    assert factor != 1.0 or node.bb < traits.warming_sd**2, "as many cores as before tell nothing new"
    for _ in range(30):
        node = advanced(node, traits, [(10.0, 0.5)])
        assert node.tt > 0 and node.bb > 0 and node.tb**2 <= node.tt * node.bb
        node = corrected(node, traits, 60.0)


def warm(threads: int) -> tuple[History, float]:
    """A phone that worked at its limit for ten minutes."""
    history, now = begin(handheld=True, battery=True, threads=threads), 1.7e9
    for _ in range(120):
        now += 5.0
        history = observe(history, 0.4, now)
        reading = Reading(t=now, battery_c=37.0, battery_percent=80.0, plugged=True, charging="full")
        _, history = decide(reading, LIMITS, history, now)
    return history, now


def next_duty(history: History, now: float) -> float:
    reading = Reading(t=now, battery_c=37.0, battery_percent=80.0, plugged=True, charging="full")
    return decide(reading, LIMITS, replace(history, decided_t=None), now)[0].duty


def test_more_threads_begin_with_less_duty_and_fewer_with_more() -> None:
    history, now = warm(2)
    duty = next_duty(history, now)
    assert 0.1 < duty < 0.9
    assert next_duty(refitted(history, MORE, threads=4), now) < 0.75 * duty
    assert next_duty(refitted(history, FEWER, threads=1), now) > min(1.0, 1.2 * duty)


def test_timing_in_vain_changes_nothing_that_was_learned() -> None:
    history, _ = warm(2)
    after = refitted(history, Wish(kind="retune", why="slow"), threads=2)
    assert (after.heat, after.work, after.pace) == (history.heat, history.work, history.pace)
