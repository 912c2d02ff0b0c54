"""Markdown as it is written, without the front matter and the comments that no reader of it sees."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

__all__ = ["markdown_text"]

_FRONT = re.compile(r"\s*---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)\s*", re.DOTALL | re.MULTILINE)
_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)
_HEADING = re.compile(r"#{1,6} |[^\n]+\n=+[ \t]*\n")
_COMMENT_CHARS = 1 << 16  # a longer one is text that happens to hold its mark


def markdown_text(texts: Iterable[str]) -> Iterator[str]:
    """The text of a page that arrives in parts, the first of which holds the front matter where there is any.

    Its title comes before the text, unless that begins with a heading of its own.
    """
    held, is_first = "", True
    for text in texts:
        text, held = held + text, ""
        if is_first:
            text, is_first = _without_front(text), False
        text, held = _without_comments(text)
        yield text
    yield held


def _without_front(text: str) -> str:
    front = _FRONT.match(text)
    if front is None:
        return text
    body, title = text[front.end() :], _TITLE.search(front[1])
    if title is None or _HEADING.match(body):
        return body
    return f"# {title[1].strip(chr(34) + chr(39))}\n\n{body}"


def _without_comments(text: str) -> tuple[str, str]:
    """The text without whole comments, and what may be the beginning of one."""
    kept: list[str] = []
    at = 0
    while (start := text.find("<!--", at)) >= 0:
        end = text.find("-->", start + 4)
        if end < 0:
            waits = len(text) - start <= _COMMENT_CHARS
            return "".join([*kept, text[at : start if waits else len(text)]]), text[start:] if waits else ""
        kept.append(text[at:start] if end - start <= _COMMENT_CHARS else text[at : end + 3])
        at = end + 3
    # The mark itself may lie across two parts.
    cut = next((n for n in (3, 2, 1) if text.endswith("<!--"[:n]) and len(text) - n >= at), 0)
    return "".join([*kept, text[at : len(text) - cut]]), text[len(text) - cut :] if cut else ""
