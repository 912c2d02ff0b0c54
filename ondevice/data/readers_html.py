"""HTML to plain text: the title, then what a reader of the page sees, one paragraph after another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser

from ondevice.data.readers import Unreadable

__all__ = ["html_text"]

_WAITING_CHARS = 1 << 23  # an unfinished tag or comment longer than this is no HTML
_REST_CHARS = 1 << 16  # the same at the end, where the parser needs time in proportion to the square

_SPACE = re.compile(r"[ \t\n\r\f]+")
_DROPPED = frozenset({"script", "style", "head", "template", "svg", "noscript"})
_PARAGRAPHS = frozenset(
    re.findall(
        r"\w+",
        "address article aside blockquote body details dl fieldset figure footer form h1 h2 h3 h4 h5 h6 header main "
        "nav ol p pre section table ul",
    )
)
_LINES = frozenset(
    re.findall(r"\w+", "br caption dd div dt figcaption hr legend li option summary tbody tfoot thead tr")
)
_CELLS = frozenset({"td", "th"})


def html_text(texts: Iterable[str]) -> Iterator[str]:
    """The visible text of a page that arrives in parts. Raises Unreadable when a tag or comment never ends."""
    parser = _Text()
    try:
        for text in texts:
            parser.feed(text)
            _check_waiting(parser, _WAITING_CHARS)
            yield parser.take()
        _check_waiting(parser, _REST_CHARS)
        parser.close()
    except AssertionError as error:  # how the parser says that a declaration makes no sense
        raise _broken(str(error)) from error
    yield parser.take()


def _check_waiting(parser: HTMLParser, most: int) -> None:
    if len(parser.rawdata) > most and (parser.cdata_elem or parser.rawdata.startswith("<")):
        raise _broken("a tag or comment never ends")


def _broken(detail: str) -> Unreadable:
    return Unreadable("broken_html", f"is not HTML that can be read ({detail})", "correct it or leave it out")


class _Text(HTMLParser):
    """Collects text. Space and line breaks wait until a word follows, so none pile up or trail."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._started = False
        self._space = False
        self._breaks = 0
        self._dropped: list[str] = []
        self._title = False
        self._pre = 0

    def take(self) -> str:
        """The text since the last call."""
        text = "".join(self._parts)
        self._parts.clear()
        return text

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and self._dropped in ([], ["head"]):
            self._title = True
        if tag == "body" and self._dropped == ["head"]:  # a head that was never closed
            self._dropped.clear()
        if tag in _DROPPED:
            self._dropped.append(tag)
        if tag == "pre":
            self._pre += 1
        self._border(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag == "title" and self._title:
            self._title = False
            self._break(2)
        if tag in self._dropped:
            del self._dropped[self._dropped.index(tag) :]
        if tag == "pre":
            self._pre = max(0, self._pre - 1)
        self._border(tag)

    def handle_data(self, data: str) -> None:
        if self._dropped and not self._title:
            return
        if self._pre:
            self._write(data.replace("\r\n", "\n"))
            return
        words = _SPACE.sub(" ", data)
        self._space |= words.startswith(" ")
        if text := words.strip(" "):
            self._write(text)
            self._space = words.endswith(" ")

    def _border(self, tag: str) -> None:
        if self._dropped:
            return
        if tag in _PARAGRAPHS:
            self._break(2)
        elif tag in _LINES:
            self._break(1)
        elif tag in _CELLS:
            self._space = True

    def _break(self, lines: int) -> None:
        self._breaks = max(self._breaks, lines)

    def _write(self, text: str) -> None:
        """Adds text after the breaks or the space that were waiting."""
        if self._started:
            self._parts.append("\n" * self._breaks if self._breaks else " " * self._space)
        self._parts.append(text)
        self._started, self._space, self._breaks = True, False, 0
