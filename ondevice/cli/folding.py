"""Sentences folded between words where a terminal is narrow, for phones of 40 columns; and the help of a command.

Knows widths only. What goes into a pipe or a file is never folded, so that programs read one fact a line.
"""

from __future__ import annotations

import argparse
import copy
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from typing import IO

from ondevice.cli.common import for_terminal

__all__ = ["WIDEST", "HelpFormatter", "columns", "fold", "folded", "tell"]

WIDEST = 100  # sentences are read with difficulty where lines are longer
_LABEL = re.compile(r"\s*\S+ {2,}|\s*")  # what stands before the words of a line: "  loss      ", "Warning  ", "    "
_WORD = re.compile(r"(?:`[^`]*`|\S)+")  # a command in backticks is one word
_UNQUOTED = re.compile(r"""(?:"[^"]*"|'[^']*'|\S)+""")
_TABLE = re.compile(r"\S {2,}\S.*\S {2,}\S")
_COMMAND = re.compile(r"  (?:[A-Z_]+=\S+ )?(?:ondevice|curl)\b")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")  # argparse's own, from Python 3.14 on
_OPTIONS = re.compile(rf"(\[options\](?:{_COLOUR.pattern})*) ")
_DEEPER = 6  # columns that the rest of an example is indented by


def tell(text: str, stream: IO[str] | None = None) -> None:
    """Prints text for a person: on a terminal folded and harmless, elsewhere as it is. Standard output by default."""
    stream = stream or sys.stdout
    shown = for_terminal(text, stream)
    if stream.isatty():
        width = min(WIDEST, shutil.get_terminal_size().columns)
        shown = folded(shown, width)
    print(shown, file=stream, flush=True)


def folded(text: str, width: int) -> str:
    """Every line of a text folded."""
    return "\n".join(part for line in text.split("\n") for part in fold(line, width))


def fold(line: str, width: int) -> list[str]:
    """Lines of at most ``width`` columns; later ones begin below the words of the first. Rows of a table stay whole.

    A command that stands alone goes on after a backslash, so that it can be pasted.

    >>> fold("  advice    notes was read 5.2 times", 28)
    ['  advice    notes was read', '            5.2 times']
    """
    if columns(line) <= width or _TABLE.search(line):
        return [line]
    if _COMMAND.match(line):
        return _command(line, width)
    found = _LABEL.match(line)
    label = found[0] if found else ""
    indent = " " * min(len(label), width // 2)
    return list(_filled(_WORD.findall(line[len(label) :]), width, first=label, rest=indent))


def _filled(words: Iterable[str], width: int, *, first: str, rest: str, end: str = "") -> Iterator[str]:
    """``end`` closes each line but the last. A word longer than a line is broken, unless a command is to be pasted."""
    line, empty = first, True
    for word in (part for each in words for part in _parts(each, width - len(rest) - len(end))):
        if not empty and columns(f"{line} {word}{end}") > width:
            yield line + end
            line, empty = rest, True
        line, empty = (line + word if empty else f"{line} {word}"), False
    yield line


def _parts(word: str, room: int) -> list[str]:
    """A long command in backticks falls apart at its spaces, but for those in quotes; a long path stays whole, as the
    terminal breaks it."""
    return [word] if columns(word) <= room else _UNQUOTED.findall(word)


def columns(text: str) -> int:
    """Cells of a terminal that a text takes: ideographs take two, marks above a letter none.

    >>> columns("日本e\\u0301")
    5
    """
    return sum(_cells(char) for char in text)


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


class HelpFormatter(argparse.HelpFormatter):
    """Help that fits a phone: a short usage, and examples that can still be pasted where they are long."""

    def _format_usage(
        self,
        usage: str | None,
        actions: Iterable[argparse.Action],
        groups: Iterable[argparse._MutuallyExclusiveGroup],
        prefix: str | None,
    ) -> str:
        needed = [_called_short(action) for action in actions if action.required or not action.option_strings]
        text = super()._format_usage(usage, needed, [], prefix)
        if usage is not None or prefix == "":  # argparse asks so for what the actions of a command are called
            return text
        text = text.replace(self._prog, f"{self._prog} [options]", 1)
        shown = _COLOUR.sub("", text).rstrip()
        return text if len(shown) <= self._width else _OPTIONS.sub(r"\1\n       ", text, count=1)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = _joined(text.splitlines())
        return "\n".join(indent + part for line in lines for part in _help_lines(line, width - len(indent)))


def _called_short(action: argparse.Action) -> argparse.Action:
    """In the usage alone: what the actions of a command are called stands below it, and would not fit beside it."""
    if not isinstance(action, argparse._SubParsersAction):
        return action
    short = copy.copy(action)
    short.metavar = "ACTION"
    return short


def _joined(lines: Iterable[str]) -> list[str]:
    """Sentences that go on in the next line of the source are one line: where they end is for the terminal to say."""
    found: list[str] = []
    for line in lines:
        goes_on = found and found[-1] and not found[-1].startswith(" ") and not found[-1].endswith(":")
        if goes_on and line and not line.startswith(" "):
            found[-1] += " " + line
        else:
            found.append(line)
    return found


def _help_lines(line: str, width: int) -> list[str]:
    """A line of an epilog: a command and what it does are parted, and a long command goes on after a backslash."""
    if columns(line) <= width:
        return [line]
    if line.lstrip().startswith("-"):
        return [line]  # the rest of a command, in quotes that no line end may cut
    command, gap, note = line.strip().partition("  ")
    if _COMMAND.match(line):
        return _command(f"  {command}", width) + (_note(note, width) if gap else [])
    return _note(line, width) if line.startswith(" " * 10) else fold(line, width)


def _command(line: str, width: int) -> list[str]:
    words = re.split(r" (?=--?\w)", line.strip().removesuffix(" \\"))
    parts = list(_filled(words, width, first="  ", rest=" " * _DEEPER, end=" \\"))
    parts[-1] += " \\" if line.endswith(" \\") else ""
    return parts


def _note(text: str, width: int) -> list[str]:
    return list(_filled(text.split(), width, first=" " * _DEEPER, rest=" " * _DEEPER))
