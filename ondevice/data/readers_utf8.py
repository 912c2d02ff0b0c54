"""Bytes to text. Invalid UTF-8 is never replaced: the line or the document is left out, or the build is refused.

A physical line ends at ``\\n``. A byte order mark is dropped, ``\\r\\n`` becomes ``\\n``, a lone ``\\r`` is kept.
Memory is bounded whatever the length of a line.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from ondevice.data.readers import Leaf
from ondevice.errors import DataError

__all__ = ["LONG_LINE", "Chunk", "first_invalid", "lenient_text", "lines_text", "strict_text"]

LONG_LINE = 1 << 20  # bytes of one line held in memory; a longer line is judged by a second pass over the file

_decode = codecs.utf_8_decode


class Chunk(NamedTuple):
    """A stretch of text and the number of the physical line (from 1) that its first character is on."""

    text: str
    line: int


def _counted(blocks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Each block with its byte offset; the byte order mark is taken off the first."""
    offset = 0
    for block in blocks:
        if offset == 0 and block.startswith(codecs.BOM_UTF8):
            offset, block = len(codecs.BOM_UTF8), block[len(codecs.BOM_UTF8) :]
        yield offset, block
        offset += len(block)


class _InvalidError(Exception):
    """Bytes that are no UTF-8, on this physical line (from 1)."""

    def __init__(self, line: int, reason: str) -> None:
        self.line, self.reason = line, reason


def _decoded(blocks: Iterator[bytes], errors: str) -> Generator[Chunk, None, None]:
    """Text of a whole stream. Raises _InvalidError."""
    rest, line = b"", 1
    for _, block in _counted(blocks):
        data = rest + block
        text, used = _decode_on(data, errors, line, final=False)
        rest = data[used:]
        yield Chunk(text, line)
        line += text.count("\n")
    if rest:
        yield Chunk(_decode_on(rest, errors, line, final=True)[0], line)


def _decode_on(data: bytes, errors: str, line: int, *, final: bool) -> tuple[str, int]:
    """Text of bytes that begin on this line, and how many were used. Raises _InvalidError."""
    try:
        return _decode(data, errors, final)
    except UnicodeDecodeError as error:
        raise _InvalidError(line + data.count(b"\n", 0, error.start), error.reason) from None


def strict_text(leaf: Leaf) -> Iterator[Chunk]:
    """The text of a file that must be valid throughout. Raises DataError with the line of the first bad byte."""
    try:
        yield from _newlines(_decoded(leaf.blocks(), "strict"))
    except _InvalidError as error:
        raise DataError(
            f"{leaf.shown}:{error.line}: this line is not valid UTF-8 ({error.reason}); convert the file "
            '(iconv -f LATIN1 -t UTF-8), or set data.bad_utf8 = "skip_line" to leave such lines out.'
        ) from error


def lenient_text(leaf: Leaf) -> Iterator[Chunk]:
    """The text with each invalid byte as a lone surrogate, for a caller that drops every document that holds one."""
    yield from _newlines(_decoded(leaf.blocks(), "surrogateescape"))


def first_invalid(leaf: Leaf) -> int | None:
    """The first line with invalid UTF-8, found by reading the whole file; None when there is none."""
    try:
        for _ in _decoded(leaf.blocks(), "strict"):
            pass
    except _InvalidError as error:
        return error.line
    return None


def lines_text(leaf: Leaf, bad: Callable[[int], None]) -> Iterator[Chunk]:
    """The text without the physical lines that hold invalid bytes; ``bad(line)`` hears of each."""
    try:
        yield from _newlines(_Lines(leaf, bad).run())
    except UnicodeDecodeError as error:  # the second pass over a long line found no fault
        raise DataError(f"{leaf.shown}: the file changed while it was read; repeat the command.") from error


def _newlines(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Turns CR LF into LF, also where it lies across two chunks."""
    held, line = "", 1
    for text, line in chunks:
        text, held = held + text, ""
        if text.endswith("\r"):
            text, held = text[:-1], "\r"
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if text:
            yield Chunk(text, line)
    if held:
        yield Chunk(held, line)


class _Lines:
    """Leaves out bad lines. A line that is not whole yet waits, unless it is a very long one."""

    def __init__(self, leaf: Leaf, bad: Callable[[int], None]) -> None:
        self._leaf = leaf
        self._bad = bad
        self._line = 1
        self._bad_long: set[int] | None = None

    def run(self) -> Iterator[Chunk]:
        rest, base = b"", 0  # bytes of a line that is not whole yet, and their offset
        good: bool | None = None  # None, or inside a long line: whether it is kept
        for offset, block in _counted(self._leaf.blocks()):
            base, rest = offset - len(rest), rest + block
            if good is not None:
                text, used, ended = _long_part(rest, good)
                yield Chunk(text, self._line)
                base, rest = base + used, rest[used:]
                if not ended:
                    continue
                self._line, good = self._line + 1, None
            cut = rest.rfind(b"\n") + 1
            yield from self._whole_lines(rest[:cut])
            base, rest = base + cut, rest[cut:]
            if len(rest) > LONG_LINE:
                good = self._is_good(base)
        if good is not False:
            yield from self._whole_lines(rest)

    def _whole_lines(self, data: bytes) -> Iterator[Chunk]:
        """The good ones among whole lines."""
        view, start = memoryview(data), 0
        while start < len(data):
            wrong = None
            try:
                text = _decode(view[start:], "strict", True)[0]
            except UnicodeDecodeError as error:
                wrong = start + error.start
                good_end = data.rfind(b"\n", start, wrong) + 1 or start
                text = _decode(view[start:good_end], "strict", True)[0]
            if text:
                yield Chunk(text, self._line)
                self._line += text.count("\n")
            if wrong is None:
                return
            self._bad(self._line)
            self._line += 1
            start = data.find(b"\n", wrong) + 1 or len(data)

    def _is_good(self, line_start: int) -> bool:
        """Whether the long line that begins at this offset is valid to its end."""
        if self._bad_long is None:
            self._bad_long = set(_bad_long_lines(self._leaf))
        if line_start in self._bad_long:
            self._bad(self._line)
            return False
        return True


def _long_part(data: bytes, good: bool) -> tuple[str, int, bool]:
    """The next part of a long line: its text (none when the line is bad), bytes used, whether the line ends here."""
    end = data.find(b"\n") + 1
    stop = end or len(data)
    if not good:
        return "", stop, bool(end)
    text, used = _decode(data[:stop], "strict", bool(end))
    return text, used, bool(end)


def _bad_long_lines(leaf: Leaf) -> Iterator[int]:
    """Offset of each line that crosses a block and is not valid.

    Lines within one block are never long, so they are not looked at.
    """
    start, wrong, rest = -1, False, b""
    for offset, block in _counted(leaf.blocks()):
        start = offset if start < 0 else start
        first = block.find(b"\n") + 1
        part = block[: first or len(block)]
        if not wrong:
            wrong, rest = _scan(rest + part, final=bool(first))
        if first:
            if wrong:
                yield start
            last = block.rfind(b"\n") + 1
            start = offset + last
            wrong, rest = _scan(block[last:], final=False)
    if wrong or (rest and _scan(rest, final=True)[0]):
        yield start


def _scan(data: bytes, *, final: bool) -> tuple[bool, bytes]:
    """Whether there is a bad byte, and the bytes of a character that is not whole yet."""
    try:
        used = _decode(data, "strict", final)[1]
    except UnicodeDecodeError:
        return True, b""
    return False, data[used:]
