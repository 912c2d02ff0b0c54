"""What one document is: a whole file, a paragraph or a line. Very long ones are cut into pieces at a good border."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ondevice.data.readers_utf8 import Chunk

__all__ = ["LINE", "PARAGRAPH", "PIECE_CHARS", "Piece", "cut_pieces", "records"]

PIECE_CHARS = 1 << 22

LINE = re.compile(r"\n")
PARAGRAPH = re.compile(r"\n(?:[^\S\n]*\n)+")
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
    """The paragraphs or lines of a text, without those that are blank.

    A paragraph has no blank lines before it and no space after it; a line is left as it is.
    """
    strip = _stripped if separator is PARAGRAPH else _unchanged
    for text, number, line in _split(chunks, separator, limit):
        text = text if number else strip(text)
        if number or not (text.isspace() or not text):
            yield Piece(text, number, line)


def _unchanged(text: str) -> str:
    return text


def _stripped(text: str) -> str:
    blank = _LEADING_BLANK.match(text)
    return (text[blank.end() :] if blank else text).rstrip()


def _split(chunks: Iterable[Chunk], separator: re.Pattern[str], limit: int) -> Iterator[Piece]:
    """The text between separators. Lines were left out where a chunk's line number jumps."""
    carry, line = "", 1  # what follows the last separator, and the line it begins on
    number, label = 0, 1  # of the document whose pieces are being given, and its line
    for chunk in chunks:
        if not carry:
            line = chunk.line
        jump = chunk.line - line - carry.count("\n")
        known, buffer, start = len(carry), carry + chunk.text, 0
        for match in separator.finditer(buffer):
            label = label if number else line
            yield Piece(buffer[start : match.start()], number + 1 if number else 0, label)
            line += buffer.count("\n", start, match.end())
            start, number = match.end(), 0
            if jump and start >= known:
                line, jump = line + jump, 0
        carry = buffer[start:]
        for stop in _cuts(buffer[start:], limit):
            label, number = (label if number else line), number + 1
            begin = len(buffer) - start - len(carry)
            piece = carry[: stop - begin]
            yield Piece(piece, number, label)
            line, carry = line + piece.count("\n"), carry[len(piece) :]
    if carry:
        yield Piece(carry, number + 1 if number else 0, label if number else line)
