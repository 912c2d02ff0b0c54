"""Charts, sparklines and bars as plain text."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.draw import ASCII, UNICODE, Curve, Glyphs, bar, chart, sparkline


def falling(number: int) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), 4.0 - 3.0 * x / number) for x in range(number + 1))


def test_a_bar_is_exact() -> None:
    assert bar(0.5, 10).plain == "━━━━━─────"
    assert bar(0.25, 10).plain == "━━╸───────"
    assert bar(None, 4).plain == "────"
    assert bar(1.0, 4, ASCII).plain == "####"


def test_a_sparkline_falls_with_the_loss() -> None:
    assert sparkline(falling(7), 8) == "█▇▆▅▄▃▂▁"
    assert sparkline(falling(700), 8) == "█▇▆▅▄▃▂▁"
    assert sparkline(falling(5), 8, ASCII) == "#*=-._"
    assert sparkline((), 8) == ""


def test_an_ascii_chart_in_full() -> None:
    curves = [Curve(name="train", points=falling(100)), Curve(name="val", points=((50.0, 3.0),), marks=True)]
    assert chart(curves, width=38, height=6, glyphs=ASCII).plain.split("\n") == [
        "3.99 '''...                           ",
        "           ''''...   o                ",
        "2.50              ''''...             ",
        "                         ''''...      ",
        "1.01                            ''''..",
        "     0       - train  o val        100",
    ]


def test_a_braille_chart_has_the_asked_size() -> None:
    lines = chart([Curve(name="train", points=falling(300))], width=40, height=9).plain.split("\n")
    assert len(lines) == 9 and all(len(text) <= 40 for text in lines)
    assert any("\u2800" < character <= "\u28ff" for character in lines[0])


def test_no_points_and_no_room() -> None:
    assert chart([], width=40, height=9).plain == "no loss yet"
    assert chart([Curve(name="train", points=falling(3))], width=5, height=9).plain == ""


def test_a_steep_beginning_does_not_flatten_the_rest() -> None:
    points = tuple((float(x), 1.0 + 9 * math.exp(-x)) for x in range(200))
    top = chart([Curve(name="train", points=points)], width=60, height=8, glyphs=ASCII).plain.split()[0]
    assert float(top) < 2


@given(
    st.lists(st.tuples(st.floats(0, 1e15), st.floats(-1e12, 1e12)), max_size=40).map(sorted),
    st.integers(0, 80),
    st.integers(0, 20),
    st.sampled_from([ASCII, UNICODE]),
)
def test_any_points_fit(points: list[tuple[float, float]], width: int, height: int, glyphs: Glyphs) -> None:
    curves = [Curve(name="a", points=tuple(points)), Curve(name="b", points=tuple(points), marks=True)]
    sparkline(tuple(points), width, glyphs)
    lines = chart(curves, width=width, height=height, glyphs=glyphs).plain.split("\n")
    assert len(lines) <= max(1, height)


@pytest.mark.parametrize("glyphs", [ASCII, UNICODE])
def test_ascii_is_ascii(glyphs: Glyphs) -> None:
    text = chart([Curve(name="a", points=falling(50))], width=60, height=8, glyphs=glyphs).plain
    assert text.isascii() == (glyphs is ASCII)
    assert all(glyphs.state(state).isascii() == (glyphs is ASCII) for state in ("running", "killed"))
