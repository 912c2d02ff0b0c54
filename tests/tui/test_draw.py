"""Sparklines, bars, strips and big numbers as plain text."""

from __future__ import annotations

import pytest

from tui.draw import bar, big, sparkline, strip
from tui.look import ANSI, ASCII, DARK, LIGHT, UNICODE, Glyphs, Palette, level, speaks_unicode


def falling(number: int) -> tuple[tuple[float, float], ...]:
    return tuple((float(x), 4.0 - 3.0 * x / number) for x in range(number + 1))


def test_a_bar_is_exact() -> None:
    assert bar(0.5, 10).plain == "━━━━━─────"
    assert bar(0.25, 10).plain == "━━╸───────"
    assert bar(None, 4).plain == "────"
    assert bar(7.0, 4, ASCII).plain == "####"
    assert bar(-1.0, 4, ASCII).plain == "----"


def test_a_sparkline_falls_with_the_loss() -> None:
    assert sparkline(falling(7), 8) == "█▇▆▅▄▃▂▁"
    assert sparkline(falling(700), 8) == "█▇▆▅▄▃▂▁"
    assert sparkline(falling(5), 8, ASCII) == "#*=-._"
    assert sparkline((), 8) == ""


def test_a_strip_keeps_its_last_value_and_fills_rows_from_below() -> None:
    assert strip([0, 1, 2, 3], [0.0, 0.5, 0.75, 1.0], (0, 3), 4, 1, UNICODE) == ["▁▄▆█"]
    assert strip([0, 1, 3], [0.0, 0.5, 1.0], (0, 3), 4, 2, UNICODE) == ["   █", "▁███"]
    assert strip([], [], (0, 1), 3, 1, UNICODE) == ["   "]


def test_big_numbers_are_three_rows_and_words_stay_as_they_are() -> None:
    assert big("17%").plain.split("\n") == ["▄█  ▀▀█ ▀ █", " █    █ ▄▀ ", "▀▀▀   ▀ ▀ ▀"]
    assert big("1,234.5-kM ").plain.count("\n") == 2
    assert big("4.0e+05").plain == "4.0e+05"
    assert big("17%", ASCII).plain == "17%"


@pytest.mark.parametrize("glyphs", [ASCII, UNICODE])
def test_ascii_is_ascii(glyphs: Glyphs) -> None:
    every = "".join(value for value in vars(glyphs).values() if isinstance(value, str))
    assert (every + "".join(glyphs.states.values())).isascii() == (glyphs is ASCII)


@pytest.mark.parametrize("palette", [DARK, LIGHT, ANSI])
def test_colours_follow_limits(palette: Palette) -> None:
    assert level(37.0, 40.0, near=2.0, palette=palette) == palette.good
    assert level(38.5, 40.0, near=2.0, palette=palette) == palette.warn
    assert palette.bad in level(40.5, 40.0, near=2.0, palette=palette)
    assert palette.bad in level(19, 20, near=10, palette=palette, below=True)
    assert level(25, 20, near=10, palette=palette, below=True) == palette.warn
    assert level(None, 40.0, near=2.0, palette=palette) == "", "unknown has no colour"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, True),
        ({"LANG": "C"}, False),
        ({"LANG": "C", "LC_ALL": "C.UTF-8"}, True),
        ({"LANG": "it_IT.utf8"}, True),
        ({"LANG": "en_US.UTF-8", "TERM": "linux"}, False),
    ],
)
def test_who_speaks_unicode(environ: dict[str, str], expected: bool) -> None:
    assert speaks_unicode(environ) is expected
