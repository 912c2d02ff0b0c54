"""Charts as plain text: bands, lines, marks, levels, axes."""

from __future__ import annotations

import math
import time

from hypothesis import given
from hypothesis import strategies as st

from tui.chart import Axes, Curve, chart
from tui.look import ANSI, ASCII, Look
from tui.plots import Line
from tui.scale import x_labels
from tui.views.window import Window
from tui.words import past_midnight_s

PLAIN = Look(ASCII, ANSI)


def line(points: list[tuple[float, float]]) -> Line:
    return Line([x for x, _ in points], [y for _, y in points])


def falling(number: int) -> Line:
    return line([(float(x), 4.0 - 3.0 * x / number) for x in range(number + 1)])


def test_an_ascii_chart_in_full() -> None:
    curves = [
        Curve(name="train", line=falling(100)),
        Curve(name="val", line=line([(50.0, 3.0)]), kind="marks"),
        Curve(name="limit", line=line([(0.0, 1.5)]), kind="level"),
    ]
    text = chart(curves, width=38, height=6, look=PLAIN).plain
    assert text.split("\n") == [
        "4+'.....                              ",
        " |      ''''....    o                 ",
        " |              ''''....              ",
        "2+------------------------------------",
        " |                               ''''.",
        "  0                50              100",
    ]


def test_a_tall_chart_has_the_asked_size_and_a_floor() -> None:
    rows = chart([Curve(name="train", line=falling(300))], width=40, height=12).plain.split("\n")
    assert len(rows) == 12 and all(len(row) <= 40 for row in rows)
    assert any("\u2800" < character <= "\u28ff" for character in rows[0])
    assert "└" in rows[-2] and rows[-1].split() == ["0", "100", "200", "300"]


def test_no_points_and_no_room() -> None:
    assert chart([], width=40, height=9).plain == ""
    assert chart([Curve(name="train", line=falling(3))], width=5, height=9).plain == ""


def test_a_steep_beginning_does_not_flatten_the_rest() -> None:
    steep = line([(float(x), 1.0 + 9 * math.exp(-x)) for x in range(200)])
    text = chart([Curve(name="train", line=steep)], width=60, height=8, look=PLAIN).plain
    labels = [row.split("+")[0].strip() for row in text.split("\n") if "+" in row]
    assert labels and all(float(label) < 2 for label in labels)


def test_a_log_scale_leaves_out_what_has_no_logarithm() -> None:
    mixed = line([(0.0, 100.0), (1.0, 10.0), (2.0, 1.0), (3.0, 0.0), (4.0, -5.0)])
    text = chart([Curve(name="a", line=mixed)], width=40, height=12, axes=Axes(log=True), look=PLAIN).plain
    assert "100+" in text and " 10+" in text and "  1+" in text and "-5" not in text


def test_time_and_tokens_have_their_own_words() -> None:
    curves = [Curve(name="a", line=line([(0.0, 1.0), (2_400_000.0, 2.0)]))]
    assert labels(curves, "tokens") == ["0", "1M", "2M"]
    assert labels(curves, "elapsed") == ["0s", "11d13h", "23d03h"]


def labels(curves: list[Curve], axis: str) -> list[str]:
    return chart(curves, width=40, height=5, axes=Axes(x=axis), look=PLAIN).plain.split("\n")[-1].split()


@given(st.floats(-1e9, 4e9), st.floats(1e-3, 1e9), st.sampled_from(["steps", "tokens", "time", "elapsed"]))
def test_labels_of_an_axis_keep_apart_and_inside(low: float, span: float, axis: str) -> None:
    row = x_labels((low, low + span), axis, 6, 60)
    assert len(row) == 60 and row.strip() and all(len(word) <= 9 for word in row.split())


def test_times_are_labelled_at_full_minutes_hours_and_days() -> None:
    noon = 1_760_011_200.0 - past_midnight_s(1_760_011_200.0) + 12 * 3600
    assert x_labels((noon + 7, noon + 7 + 3600), "time", 6, 60).split() == ["12:15", "12:30", "12:45", "13:00"]
    assert x_labels((noon, noon + 20), "time", 6, 60).split()[0] == "12:00:00"
    assert all("-" in word for word in x_labels((noon, noon + 4 * 86400), "time", 6, 60).split())


def test_a_window_zooms_pans_and_stays_inside() -> None:
    window = Window().zoomed(0.5)
    assert (window.start, window.end) == (0.5, 1.0), "zooming keeps the present in sight"
    assert window.panned(-4.0).start == 0.0 and window.panned(4.0).end == 1.0
    assert window.zoomed(8.0).whole and Window().zoomed(1e-9).of(0.0, 1e6)[0] < 1e6
    assert window.of(100.0, 300.0) == (200.0, 300.0)
    assert [window.next_axis().axis, window.next_axis().next_axis().axis] == ["tokens", "time"]


points = st.lists(st.tuples(st.floats(0, 1e15), st.floats(-1e12, 1e12)), max_size=40).map(sorted)


@given(points, st.integers(0, 80), st.integers(0, 20), st.booleans(), st.sampled_from([PLAIN, Look()]))
def test_any_points_fit(found: list[tuple[float, float]], width: int, height: int, log: bool, look: Look) -> None:
    kinds = ("line", "band", "marks", "level")
    curves = [Curve(name=kind, line=line(found), kind=kind) for kind in kinds]
    rows = chart(curves, width=width, height=height, axes=Axes(log=log), look=look).plain.split("\n")
    assert len(rows) <= max(1, height) and all(len(row) <= max(width, 0) for row in rows)


def test_a_chart_of_many_points_is_cheap() -> None:
    many = line([(float(x), 2.0 + math.sin(x / 50)) for x in range(1200)])
    curves = [Curve(name="a", line=many, kind="band"), Curve(name="b", line=many)]
    began = time.process_time()
    for _ in range(5):
        chart(curves, width=80, height=20)
    assert (time.process_time() - began) / 5 < 0.1
