"""Places where a text may be cut, best kinds first: `prose_borders` and `code_borders`.

Simple rules over lines and marks, for any language; nothing is parsed, so nothing can fail. Knows no tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from ondevice.data.sentences import sentence_ends

__all__ = ["CODE_KINDS", "PROSE_KINDS", "Border", "code_borders", "prose_borders"]

PROSE_KINDS = ("paragraph", "sentence", "line")
CODE_KINDS = ("definition", "block", "blank_line", "line")

_BLANK_LINES = re.compile(r"\n(?:[^\S\n]*\n)+")
_NEWLINE = re.compile(r"\n(?:[^\S\n]*\n)*")
_LONGEST_LINE = 200  # characters of a line that are looked at
_MODIFIERS = (
    r"(?:(?:pub(?:\([^)\n]{0,40}\))?|export|default|public|private|protected|internal|static|abstract|final|async"
    r"|inline|extern(?:[ ]\"C\")?|unsafe|virtual|const|constexpr|data|sealed|open|override|partial|local"
    r"|template[ ]?<[^\n]{0,80}>)"
    r"[ ]+)*"
)
_DEFINES = re.compile(
    _MODIFIERS
    + r"(?:(?:def\w*|class|fn|func|function|fun|impl|struct|enum|trait|interface|module|namespace|type|typedef|union"
    r"|package|object|record|protocol|extension|macro_rules!|macro|sub|proc|procedure|subroutine|program|instance|newtype"
    r"|create|mod|typealias|constructor)\b(?![ ]*[=(.:,)])"
    r"|(?:let|const|var|val)[ ]+\w+[^=\n]{0,60}=|[\w.$]+[ ]*(?:<-|=)[ ]*(?:async[ ]+)?function\b"
    r"|\(def|[a-z_]\w*[ ]*::|\\(?:chapter|section|subsection|begin)\b|\#{1,6}[ ])",
    re.IGNORECASE,
)
_SIGNATURE = re.compile(r"[A-Za-z_][^\n;=]*\([^\n;]*\{\s*\Z")  # of C and its kin: a name, arguments, an open brace
_SIGNATURE_ALONE = re.compile(r"[A-Za-z_][^\n;=]*\([^\n;]*\)[^\n;]*\Z")  # the brace stands on the next line
_LEADS = re.compile(r"@\w|#\[|//|/\*|\*|#(?![!]|[ ]?(?:include|define|if|endif|else|pragma))|--|;;|%|\"\"\"|\[<|\(\*")
_CLOSES = re.compile(r"[)}\]]|(?:end|else|elsif|elif|except|finally|catch|fi|done|esac|then|in)\b", re.IGNORECASE)


class Border(NamedTuple):
    """A cut of this kind may lie anywhere from character ``start`` to ``end``, best at ``end``; there is nothing but
    space between them."""

    start: int
    end: int
    kind: str


def prose_borders(text: str) -> Iterator[Border]:
    """Borders of paragraphs (blank line between), sentences and lines."""
    for match in _BLANK_LINES.finditer(text):
        yield Border(match.start(), match.end(), "paragraph")
    for end, begin in sentence_ends(text):
        yield Border(end, begin, "sentence")
    for match in re.finditer("\n", text):
        yield Border(match.start(), match.end(), "line")


def code_borders(text: str) -> Iterator[Border]:
    """Borders before top-level definitions with their comments and decorators, at blank lines (better before a line
    that is not indented: a block), and at lines."""
    before = text[: text.find("\n")] if "\n" in text else ""
    for match in _NEWLINE.finditer(text):
        line = _line(text, match.end())
        yield Border(match.start(), match.end(), _code_kind(text, match, before, line))
        before = line


def _line(text: str, start: int) -> str:
    """The line that begins at ``start``, or its beginning."""
    end = text.find("\n", start, start + _LONGEST_LINE)
    return text[start : end if end >= 0 else start + _LONGEST_LINE]


def _code_kind(text: str, match: re.Match[str], before: str, line: str) -> str:
    """The kind of the border between two lines."""
    is_blank = match.end() - match.start() > 1
    if not line or line[0].isspace():
        return "blank_line" if is_blank else "line"
    if _CLOSES.match(line):
        return "line"
    leads = bool(_LEADS.match(line))
    if leads and is_blank and _leads_to_definition(text, match.end()):
        return "definition"
    belongs_above = not is_blank and bool(_LEADS.match(before))
    if not leads and not belongs_above and _defines(text, match.end(), line):
        return "definition"
    return "block" if is_blank else "line"


def _defines(text: str, start: int, line: str) -> bool:
    if _DEFINES.match(line) or _SIGNATURE.match(line):
        return True
    return bool(_SIGNATURE_ALONE.match(line)) and text.startswith("{", start + len(line) + 1)


def _leads_to_definition(text: str, start: int) -> bool:
    """Whether comments or decorators from ``start`` on stand right above a definition; looks a few lines ahead."""
    for _ in range(12):
        line = _line(text, start)
        if not line or line[0].isspace():
            return False
        if not _LEADS.match(line):
            return _defines(text, start, line)
        start += len(line) + 1
    return False
