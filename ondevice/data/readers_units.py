"""What one document is: a whole file, a paragraph or a line. Very long ones are cut into pieces at a good border."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ondevice.data.readers_utf8 import Chunk

__all__ = ["LINE", "PARAGRAPH", "PIECE_CHARS", "Piece", "cut_pieces", "records"]

PIECE_CHARS = 1 << 22

LINE = re.compile(r"\n")
PARAGRAPH = re.compile(r"\n(?:[^\S\n]*+\n)++")
_LEADING_BLANK = re.compile(r"(?:[^\S\n]*\n)+")
_BORDERS = ("\n\n", "\n", " ")


class Piece(NamedTuple):
    """A document or a piece of one. ``number`` counts the pieces from 1 and is 0 for a document that is whole.

    ``line`` is the physical line (from 1) on which the document begins.
    """

    text: str
    number: int
    line: int = 1


def cut_pieces(texts: Iterable[str], limit: int = PIECE_CHARS) -> Iterator[Piece]:
    """A text that arrives in parts, in pieces of at most ``limit`` characters; joined, they are the text exactly.

    Where the cuts are does not depend on the parts. Holds about two pieces in memory.
    """
    parts: list[str] = []
    size = number = 0
    for text in texts:
        parts.append(text)
        size += len(text)
        if size > limit:
            buffer = "".join(parts)
            start = 0
            for stop in _cuts(buffer, limit):
                number += 1
                yield Piece(buffer[start:stop], number)
                start = stop
            parts, size = [buffer[start:]], len(buffer) - start
    if size:
        yield Piece("".join(parts), number + 1 if number else 0)


def _cuts(buffer: str, limit: int) -> Iterator[int]:
    """Where pieces end, as long as more than ``limit`` characters follow."""
    start = 0
    while len(buffer) - start > limit:
        start = _border(buffer, start, start + limit)
        yield start


def _border(buffer: str, start: int, end: int) -> int:
    """The last good place to cut in the second half of [start, end): after a blank line, newline or space."""
    middle = start + (end - start) // 2
    for mark in _BORDERS:
        place = buffer.rfind(mark, middle, end)
        if place >= 0:
            return place + len(mark)
    return end


def records(chunks: Iterable[Chunk], separator: re.Pattern[str], limit: int = PIECE_CHARS) -> Iterator[Piece]:
    """The paragraphs or lines of a text, without those that are blank; longer ones than ``limit`` come in pieces.

    A paragraph has no blank lines before it and no space after it; a line is left as it is.
    """
    strips = separator is PARAGRAPH
    record = _Record(limit, strips=strips)
    for text, line, ends in _split(chunks, separator):
        if ends and record.is_new and len(text) <= limit:  # nearly all: a record within one chunk
            if strips:
                text, line = _stripped(text, line)
            if text and not text.isspace():
                yield Piece(text, 0, line)
            continue
        yield from record.add(text, line)
        if ends:
            yield from record.end()
    yield from record.end()


def _split(chunks: Iterable[Chunk], separator: re.Pattern[str]) -> Iterator[tuple[str, int, bool]]:
    """Stretches of text without separators, the line each begins on, and whether a separator follows."""
    held, line = "", 1  # what may be the first part of a separator
    for chunk in chunks:
        line = line if held else chunk.line
        buffer, start = held + chunk.text, 0
        counted, now = len(held), chunk.line  # lines may have been left out before the chunk
        for match in separator.finditer(buffer):
            yield buffer[start : match.start()], line, True
            start = match.end()
            now += buffer.count("\n", counted, start)
            counted, line = start, now
        keep = _half_separator(buffer, start) if separator is PARAGRAPH else len(buffer)
        yield buffer[start:keep], line, False
        held = buffer[keep:]
        if keep >= counted:  # else what was held is held on
            line = now + buffer.count("\n", counted, keep)
    yield held, line, False


def _half_separator(buffer: str, start: int) -> int:
    """Where the last newline is when only blanks follow it, else the length of the buffer."""
    newline = buffer.rfind("\n", start)
    is_half = newline >= 0 and len(buffer) - newline < PIECE_CHARS and buffer[newline:].isspace()
    return newline if is_half else len(buffer)


class _Record:
    """One paragraph or line that grows until it ends; gives pieces away when it becomes too long."""

    def __init__(self, limit: int, *, strips: bool) -> None:
        self._limit = limit
        self._strips = strips
        self._text = ""
        self._line = 1
        self._number = 0

    @property
    def is_new(self) -> bool:
        """Whether nothing of it was added yet."""
        return not self._text and not self._number

    def add(self, text: str, line: int) -> Iterator[Piece]:
        if not self._text:
            self._text, self._line = text, line
        else:
            self._text += text
        return self._pieces() if len(self._text) > self._limit else iter(())

    def _pieces(self) -> Iterator[Piece]:
        start = 0
        for stop in _cuts(self._text, self._limit):
            self._number += 1
            yield Piece(self._text[start:stop], self._number, self._line)
            start = stop
        self._text = self._text[start:]

    def end(self) -> Iterator[Piece]:
        """The whole record or its last piece, where there is something in it; then a new record begins."""
        text, line, number = self._text, self._line, self._number
        if self._strips and not number:
            text, line = _stripped(text, line)
        self._text, self._number = "", 0
        if number or (text and not text.isspace()):
            yield Piece(text, number + 1 if number else 0, line)


def _stripped(text: str, line: int) -> tuple[str, int]:
    """A paragraph without the blank lines before it and the space after it, and the line it begins on."""
    if text[:1].isspace() and (blank := _LEADING_BLANK.match(text)):
        text, line = text[blank.end() :], line + blank[0].count("\n")
    return text.rstrip(), line
