"""Curves in bounded memory: what thinning keeps, and that what was given out never changes."""

from __future__ import annotations

import random
from array import array

import pytest

from ondevice.run.series import Curve, Series, thinned


def noise(count: int, seed: int = 0) -> list[float]:
    dice = random.Random(seed)
    return [dice.gauss(0, 1) for _ in range(count)]


def test_the_beginning_of_a_long_run_is_kept_as_well_as_its_end() -> None:
    series = Series(256)
    for x in range(100_000):
        series.add(x, float(x % 97))
    xs = [x for x, _ in series.points]
    assert len(xs) <= 256
    quarters = [sum(1 for x in xs if 25_000 * part <= x < 25_000 * (part + 1)) for part in range(4)]
    assert min(quarters) > 0.6 * max(quarters)


@pytest.mark.parametrize("chunk", [1, 7, 150, 5000])
@pytest.mark.parametrize("count", [5000, 4096, 4097, 2 * 4096 + 1])
def test_points_added_in_bulk_keep_every_extreme(chunk: int, count: int) -> None:
    values = noise(count)
    series = Series(64)
    for start in range(0, count, chunk):
        part = values[start : start + chunk]
        series.extend(array("d", range(start, start + len(part))), array("d", part))
    points = series.points
    assert len(points) == len(series) <= 64
    assert all(values[int(x)] == y for x, y in points)
    assert [x for x, _ in points] == sorted({x for x, _ in points})
    assert {min(values), max(values)} <= {y for _, y in points}
    assert (points[0], points[-1]) == ((0, values[0]), (count - 1, values[-1]))
    assert series.last == values[-1]
    curve = series.curve()
    assert (curve.xs[curve.size - 1], curve.ys[curve.size - 1]) == points[-1]


def test_a_spike_of_one_step_survives_any_thinning() -> None:
    series = Series(64)
    for x in range(20_000):
        series.add(x, 99.0 if x == 12_345 else 1.0)
    assert (12_345, 99.0) in series.points


@pytest.mark.parametrize("capacity", [16, 64, 200])
def test_the_last_point_is_always_the_last(capacity: int) -> None:
    series = Series(capacity)
    for x, y in enumerate(noise(1500)):
        series.add(x, y)
        assert series.last == y and series.points[-1] == (x, y) and len(series) <= capacity


def test_means_stay_means() -> None:
    series = Series(64, keep="mean")
    for x in range(4097):
        series.add(x, float(x % 2))
    assert len(series) <= 64
    assert all(y == pytest.approx(0.5, abs=0.02) for _, y in series.points[1:-1])


@pytest.mark.parametrize("count", [10, 63, 1000])
def test_a_curve_that_was_given_out_stays_as_it_was(count: int) -> None:
    series = Series(64)
    for x in range(count):
        series.add(x, float(x))
    curve = series.curve()
    before = list(zip(curve.xs[: curve.size], curve.ys[: curve.size], strict=True))
    for x in range(count, 3 * count):
        series.add(x, -1.0)
    series.cut_after(count // 3)
    series.add(count // 3 + 1, 7.0)
    assert list(zip(curve.xs[: curve.size], curve.ys[: curve.size], strict=True)) == before


@pytest.mark.parametrize("count", [50, 3000])
def test_cut_and_rewound(count: int) -> None:
    series = Series(64)
    for x in range(count):
        series.add(x, float(x))
    series.cut_after(20)
    assert all(x <= 20 for x, _ in series.points)
    series.add(5, -5.0)
    assert series.last == -5.0 and all(x < 5 for x, _ in series.points[:-1])
    series.cut_after(-1)
    assert series.points == [] and series.last is None and len(series.curve()) == 0
    series.add(1, 1.0)
    assert series.points == [(1, 1.0)]


def test_values_between_points_lie_on_lines() -> None:
    curve = Curve(array("d", [0, 10, 10, 20]), array("d", [0, 1, 2, 4]))
    assert [curve.at(x) for x in (-5, 0, 5, 15, 99)] == [0, 0, 0.5, 3, 4]
    assert Curve().at(1) is None


def test_a_window_reaches_one_point_beyond_its_edges() -> None:
    curve = Curve(array("d", range(10)), array("d", range(10)))
    assert curve.between(2.5, 4.5) == (2, 6)
    assert curve.between(-9, 99) == (0, 10)


def test_thinned_keeps_ends_and_extremes() -> None:
    ys = array("d", noise(1000))
    xs, kept = thinned(array("d", range(1000)), ys, 50)
    assert len(xs) <= 50 and (xs[0], xs[-1]) == (0, 999)
    assert {min(ys), max(ys)} <= set(kept)
