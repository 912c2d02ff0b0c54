"""Pages as Markdown, HTML and SVG: everything of a stranger is escaped, nothing leads outside, drawings are right."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.report.html import page_html
from ondevice.report.markdown import page_markdown
from ondevice.report.page import MOST_POINTS, Chart, Curve, Page, Text, thinned_points
from ondevice.report.svg import HEIGHT, WIDTH, chart_svg, ticks

EVIL = '<script src="https://x"></script>\x1b[2J\x00 ``` | [a](http://b) <img src=x> \ud800'


def evil_page():
    page = Page(EVIL)
    page.head(EVIL)
    page.say(EVIL)
    page.table((EVIL, "b"), [(EVIL, "1")])
    page.chart(
        Chart(title=EVIL, x=EVIL, y=EVIL, curves=(Curve(EVIL, ((0.0, 1.0), (1.0, 2.0))),), marks=((EVIL, 0, 1),))
    )
    page.texts(EVIL, [Text(EVIL, EVIL)])
    return page


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "circle", "polyline", "polygon"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag


def test_html_escapes_every_text_and_needs_no_network():
    html = page_html(evil_page())
    html.encode("utf-8")
    parser = Tags()
    parser.feed(html)
    assert not parser.open  # every tag is closed in order
    assert not {"script", "img", "link", "a", "iframe", "object"} & {tag for tag, _ in parser.seen}
    assert not any(name in ("src", "href") for _, attrs in parser.seen for name in attrs)
    assert not re.search(r"url\(|@import", html)
    assert "\x1b" not in html and "\x00" not in html
    assert "default-src 'none'" in html and 'name="viewport"' in html and "prefers-color-scheme:dark" in html


def test_markdown_keeps_tables_and_fences_whole():
    text = page_markdown(evil_page())
    text.encode("utf-8")
    lines = text.splitlines()
    table = lines[lines.index(next(line for line in lines if line.startswith("| :--"))) - 1 :][:3]
    assert [len(re.findall(r"(?<!\\)\|", line)) for line in table] == [3, 3, 3]
    assert "````text" in text  # longer than the fence inside
    outside = text.partition("````text")[0]
    assert "<script" not in outside.replace("\\<script", "") and "\x1b" not in text


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=30),
    st.booleans(),
)
def test_every_curve_lies_inside_its_drawing(points, band):
    points = sorted(points)
    spread = tuple((x, y - 1.0, y + 1.0) for x, y in points) if band else ()
    chart = Chart(title="t", x="x", y="y", curves=(Curve("a", tuple(points), spread),))
    root = ET.fromstring(chart_svg(chart))
    drawn = [each.get("points") for each in root if each.tag in ("polyline", "polygon")]
    assert len(drawn) == 1 + band
    for pair in " ".join(filter(None, drawn)).split():
        across, down = map(float, pair.split(","))
        assert 0 <= across <= WIDTH and 0 <= down <= HEIGHT


def test_rates_are_drawn_by_their_logarithm():
    chart = Chart(title="t", x="x", y="y", curves=(Curve("a", ((1e-4, 1.0), (1e-3, 1.0), (1e-2, 1.0))),), log_x=True)
    line = next(each for each in ET.fromstring(chart_svg(chart)) if each.tag == "polyline")
    xs = [float(pair.split(",")[0]) for pair in line.get("points").split()]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)


@given(st.floats(-1e4, 1e4), st.floats(1e-2, 1e9))
def test_ticks_are_few_round_and_inside(low, span):
    found = ticks(low, low + span)
    assert len(found) <= 7
    assert all(low - 1e-6 * span - 1e-9 <= each <= low + span * (1 + 1e-6) + 1e-9 for each in found)


@pytest.mark.parametrize(("last", "shown"), [(967, ["200", "400", "600", "800"]), (220, ["50", "100", "150", "200"])])
def test_an_axis_of_steps_has_more_than_one_figure(last, shown):
    chart = Chart(title="t", x="step", y="y", curves=(Curve("a", ((1.0, 0.0), (float(last), 3.0))),))
    texts = [each.text for each in ET.fromstring(chart_svg(chart)) if each.get("text-anchor") == "middle"]
    assert texts[: len(shown)] == shown


def test_a_chart_needs_two_points():
    page = Page("t")
    page.chart(Chart(title="t", x="x", y="y", curves=(Curve("a", ((0.0, 1.0),)),)))
    page.table(("a",), [])
    page.texts("t", [])
    assert page.blocks == []


def test_thinning_keeps_extremes():
    points = [(float(k), 100.0 if k == 777 else -50.0 if k == 4242 else 0.0) for k in range(10_000)]
    thin = thinned_points(points)
    assert len(thin) <= MOST_POINTS and (777.0, 100.0) in thin and (4242.0, -50.0) in thin
