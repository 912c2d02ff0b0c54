"""EPUB pages in reading order, Markdown without what nobody reads; damaged books are told apart from readable ones."""

import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.data import readers
from ondevice.data.documents import Problems
from ondevice.data.readers_markdown import markdown_text
from ondevice.data.sources import iter_documents, resolve
from ondevice.errors import DataError
from ondevice.run.schema import SourceConfig

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
)
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf"><manifest>
<item id="one" href="one.xhtml" media-type="application/xhtml+xml"/>
<item id="two" href="text/two%20b.xhtml#top" media-type="application/xhtml+xml"/>
<item id="pic" href="pic.png" media-type="image/png"/>
<item id="extra" href="extra.xhtml" media-type="application/xhtml+xml"/></manifest>
<spine><itemref idref="two"/><itemref idref="pic"/><itemref idref="one"/><itemref idref="two"/></spine></package>"""
PAGES = {
    "OEBPS/one.xhtml": "<html><head><title>One</title></head><body><p>Erste Seite</p></body></html>",
    "OEBPS/text/two b.xhtml": "<html><body><h1>İki</h1><p>kâr ve kar</p></body></html>",
    "OEBPS/pic.png": "no text",
    "OEBPS/extra.xhtml": "<p>not in the book</p>",
}


def write_book(path, **changes):
    """A book; ``changes`` replace members, or leave them out where None."""
    members = {"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": PACKAGE, **PAGES, **changes}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)


def read(base, path, **keys):
    problems = Problems()
    source = SourceConfig(path=path, name="s", **keys)
    documents = iter_documents(source, base=base, bad_utf8="skip_line", problems=problems)
    return [(document.origin, document.text) for document in documents], problems


def test_pages_come_in_reading_order_each_once(tmp_path):
    write_book(tmp_path / "b.epub")
    assert resolve(SourceConfig(path="b.epub"), base=tmp_path).format == "epub"
    found, problems = read(tmp_path, "b.epub")
    assert [origin for origin, _ in found] == ["b.epub!OEBPS/text/two b.xhtml", "b.epub!OEBPS/one.xhtml"]
    assert "kâr ve kar" in found[0][1] and found[0][1].startswith("İki") and "Erste Seite" in found[1][1]
    assert not problems


def test_a_folder_of_books_and_texts(tmp_path):
    write_book(tmp_path / "b.epub")
    (tmp_path / "a.txt").write_text("plain")
    (tmp_path / "c.epub").write_bytes(b"no book")
    found, problems = read(tmp_path, ".")
    assert [origin.partition("!")[0] for origin, _ in found] == ["a.txt", "b.epub", "b.epub"]
    assert problems.examples("s", "broken_book") == ("c.epub",)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"META-INF/container.xml": None}, "it has no META-INF/container.xml"),
        ({"META-INF/container.xml": "<container/>"}, "names no list of its pages"),
        ({"META-INF/container.xml": "<cont"}, "META-INF/container.xml: "),
        ({"OEBPS/book.opf": None}, "it has no OEBPS/book.opf"),
        ({"OEBPS/book.opf": '<!DOCTYPE x [<!ENTITY a "aaaa">]><package/>'}, "declares entities"),
        ({"OEBPS/book.opf": ""}, "is empty"),
        ({"OEBPS/one.xhtml": None}, "it has no OEBPS/one.xhtml"),
    ],
)
def test_a_broken_book_says_what_is_wrong(tmp_path, changes, why):
    write_book(tmp_path / "b.epub", **changes)
    with pytest.raises(DataError, match=rf"b.epub is no EPUB book that can be read \(.*{why}.*\); fetch it again"):
        read(tmp_path, "b.epub")


def test_no_book_at_all(tmp_path):
    (tmp_path / "b.epub").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=r"b.epub is no EPUB book"):
        read(tmp_path, "b.epub")


def test_a_page_that_swells_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "BOMB_BYTES", 10_000)
    write_book(tmp_path / "b.epub", **{"OEBPS/one.xhtml": "<p>" + "x" * 3_000_000 + "</p>"})
    with pytest.raises(DataError, match="compressed bytes swell"):
        read(tmp_path, "b.epub")


def test_a_page_that_is_no_text_is_counted(tmp_path):
    write_book(tmp_path / "b.epub", **{"OEBPS/one.xhtml": "\0\1\2"})
    found, problems = read(tmp_path, "b.epub")
    assert len(found) == 1 and problems.count("binary_file") == 1


def test_books_inside_archives_are_named(tmp_path):
    write_book(tmp_path / "b.epub")
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        archive.write(tmp_path / "b.epub", "b.epub")
        archive.writestr("a.txt", "plain")
    found, problems = read(tmp_path, "old.zip")
    assert [text for _, text in found] == ["plain"]
    assert problems.examples("s", "unsupported_file") == ("old.zip!b.epub",)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("---\ntitle: 'My page'\ntags: [a]\n---\n\nBody.\n", "# My page\n\nBody.\n"),
        ("---\ntitle: My page\n---\n# Own\nBody\n", "# Own\nBody\n"),
        ("---\ntitle: My page\n---\nOwn\n===\nBody\n", "Own\n===\nBody\n"),
        ("---\ntags: x\n...\nBody\n", "Body\n"),
        ("---\nnever closed\n", "---\nnever closed\n"),
        ("Body\n---\ntitle: x\n---\n", "Body\n---\ntitle: x\n---\n"),
        ("a <!-- not\nseen --> b <!----> c", "a  b  c"),
        ("a <!-- open", "a <!-- open"),
        ("a <", "a <"),
        ("```\nx < y\n```\n", "```\nx < y\n```\n"),
    ],
)
def test_markdown(text, expected):
    assert "".join(markdown_text([text])) == expected


@given(st.lists(st.sampled_from(["<", "!", "-", "--", ">", "<!--", "-->", "x"]), max_size=30), st.integers(1, 5))
def test_comments_are_found_whatever_the_parts(marks, size):
    text = "".join(marks)
    parts = [text[start : start + size] for start in range(0, len(text), size)]
    assert "".join(markdown_text(parts)) == "".join(markdown_text([text]))


def test_markdown_is_text_unless_it_is_declared(tmp_path):
    (tmp_path / "a.md").write_text("---\ntitle: T\n---\nBody\n")
    assert read(tmp_path, "a.md")[0] == [("a.md", "---\ntitle: T\n---\nBody\n")]
    assert read(tmp_path, "a.md", format="markdown")[0] == [("a.md", "# T\n\nBody\n")]
