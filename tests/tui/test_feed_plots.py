"""Curves to zoom and pan: by steps, tokens or time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from tui.curves import Curves
from tui.feed import Feed
from tui.plots import AXES, Plots
from tui.rows import Steps

Recorded = Callable[[str], Any]


@pytest.fixture
def plots(recorded: Recorded) -> Plots:
    (run,) = Feed([recorded("healthy").run.path]).snapshot().runs
    return run.plots


@pytest.mark.parametrize("axis", AXES)
def test_every_curve_goes_by_every_axis(plots: Plots, axis: str) -> None:
    for name in plots.names:
        line, extent = plots.series(name, x=axis), plots.extent(name, x=axis)
        assert line and list(line.xs) == sorted(line.xs)
        assert extent == (line.xs[0], line.xs[-1])


def test_axes_agree(plots: Plots) -> None:
    (by_step, by_token, by_time) = (plots.series("loss", x=axis) for axis in ("steps", "tokens", "time"))
    assert list(by_token.xs) == [768 * step for step in by_step.xs]
    assert by_step.ys == by_token.ys == by_time.ys
    assert by_time.xs[24] - by_time.xs[0] == pytest.approx(12.0, abs=0.01), "half a second a step"
    assert by_time.xs[25] - by_time.xs[24] == pytest.approx(30.5, abs=0.01), "and a reading in between"


def test_zooming_by_time_shows_what_happened_then(plots: Plots) -> None:
    start, end = plots.series("loss", x="time").xs[30], plots.series("loss", x="time").xs[40]
    line = plots.series("loss", x="time", start=start, end=end)
    assert 11 <= len(line) <= 13 and line.xs[0] <= start and line.xs[-1] >= end
    heat = plots.series("cpu_c", x="steps", start=20, end=60)
    assert heat.xs[0] <= 25 and heat.xs[-1] >= 50
    assert len(plots.series("cpu_c", x="tokens", start=1e9)) <= 2


def test_rates_follow_from_the_times_of_steps(plots: Plots) -> None:
    steps_s, rates = plots.series("step_s").ys, plots.series("tok_s").ys
    assert list(rates) == pytest.approx([768 / step_s for step_s in steps_s], rel=1e-4)
    assert len(set(steps_s)) > 10, "they differ"


def test_smoothing_lies_between_the_extremes_and_is_smoother() -> None:
    dice, curves = random.Random(3), Curves()
    for step in range(1, 2001):
        curves.fold({"v": 1, "t": float(step), "kind": "step", "step": step, "loss": 2 + dice.gauss(0, 0.5)})
    raw, smooth = (curves.plots().series(name, max_points=300) for name in ("loss", "loss_smooth"))
    assert (smooth.xs[0], smooth.xs[-1]) == (1, 2000) and len(smooth) <= 302
    middle = list(smooth.ys)[20:-20]
    assert max(middle) - min(middle) < 0.3 < max(raw.ys) - min(raw.ys)


def test_a_zoom_into_a_long_run_is_cheap_and_keeps_a_spike() -> None:
    from array import array

    curves = Curves()
    for start in range(0, 300_000, 1000):
        steps = array("d", range(start + 1, start + 1001))
        losses = array("d", (99.0 if step == 250_000 else 1.0 for step in steps))
        last = array("d", [steps[-1]])
        curves.fold_steps(
            Steps(
                steps=steps,
                losses=losses,
                grad_norms=losses,
                steps_s=losses,
                marked=last,
                ts=last,
                tokens=last,
                lrs=last,
                tokens_a_step=1.0,
                whole={},
            )
        )
    plots = curves.plots()
    began = time.process_time()
    for _ in range(20):
        near = plots.series("loss", start=249_000, end=251_000, max_points=200)
    assert (time.process_time() - began) / 20 < 0.05
    assert 99.0 in near.ys and 99.0 in plots.series("loss", max_points=200).ys
    assert len(near) <= 202


def test_nothing_is_drawn_of_what_is_not_there() -> None:
    assert not Plots().series("loss") and Plots().names == () and Plots().extent("cpu_c", x="time") is None
