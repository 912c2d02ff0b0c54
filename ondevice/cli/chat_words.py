"""Text that comes in pieces, wrapped between words to the width of a terminal."""

from __future__ import annotations

import re

from ondevice.cli.folding import columns

__all__ = ["Wrapped"]

_PARTS = re.compile(r"\n|[^\S\n]+|\S+")


class Wrapped:
    """``width`` 0 leaves everything as it is.

    >>> out = Wrapped(10)
    >>> out.feed("a few long wor") + out.feed("ds") + out.flush()
    'a few long\\nwords'
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._column = 0
        self._gap, self._word = "", ""  # not shown yet: white space, and a word that may go on

    def feed(self, text: str) -> str:
        """What can be shown by now."""
        if not self._width:
            return text
        return "".join(self._take(part) for part in _PARTS.findall(text))

    def flush(self) -> str:
        """The last word."""
        return self._word_out()

    def _take(self, part: str) -> str:
        if not part.isspace():
            self._word += part
            return self._broken() if columns(self._word) > self._width else ""
        out = self._word_out()
        if part == "\n":
            self._column, self._gap = 0, ""
            return out + "\n"
        self._gap += part
        return out

    def _word_out(self) -> str:
        word, gap = self._word, self._gap
        if not word:
            return ""
        self._word, self._gap = "", ""
        if self._column + columns(gap) + columns(word) > self._width:
            begun, self._column = self._column, columns(word)
            return "\n" + word if begun else word
        self._column += columns(gap) + columns(word)
        return gap + word

    def _broken(self) -> str:
        """A word wider than the terminal is cut where the line ends."""
        out, left = "\n" if self._column else "", self._word
        self._column, self._gap = 0, ""
        while columns(left) > self._width:
            line = _fitting(left, self._width)
            out, left = out + line + "\n", left[len(line) :]
        self._word = left
        return out


def _fitting(text: str, width: int) -> str:
    used = 0
    for index, each in enumerate(text):
        used += columns(each)
        if used > width:
            return text[: max(1, index)]
    return text
