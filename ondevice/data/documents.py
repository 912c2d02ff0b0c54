"""One piece of text with its provenance, and the ledger of everything that was left out.

Written by the readers, read by whoever builds chunks or reports. Knows nothing of files, tokens or formats.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from ondevice.data.languages import LANGUAGES
from ondevice.errors import DataError

__all__ = ["EXAMPLES_KEPT", "REASONS", "Document", "Problems", "printable"]

EXAMPLES_KEPT = 20
_EXAMPLES_SHOWN = 3

REASONS = {
    "invalid_utf8_line": "lines with invalid UTF-8 left out",
    "invalid_utf8_document": "documents with invalid UTF-8 left out",
    "lone_surrogate": "JSONL rows left out because their text holds half of a surrogate pair",
    "binary_file": "binary files left out",
    "utf16_file": "UTF-16 files left out (convert them to UTF-8, for example with iconv)",
    "empty_document": "documents without text left out",
    "duplicate_document": "exact copies of an earlier document left out",
    "near_duplicate": "documents that are nearly an earlier one left out (data.clean.near_duplicates)",
    "unreadable_file": "files that could not be read",
    "unreadable_member": "archive members that could not be read (encrypted, damaged or packed in an unknown way)",
    "unreadable_folder": "folders that could not be opened",
    "unsupported_file": "files of a type this source does not read",
    "symlink_outside": "symbolic links that lead out of the folder, not followed",
    "unknown_symbol": "symbols that are not in the vocabulary, read as unknown",
    "broken_html": "HTML files left out because a tag or comment never ends",
    "broken_book": "EPUB books that could not be read (damaged or encrypted)",
    "few_words": "documents with too few words left out (data.clean.min_words)",
    "long_word": "documents with too long a word left out (data.clean.max_word_chars)",
    **{f"language_{name}": f"documents in another language ({name}) left out" for name in LANGUAGES},
}
"""Reason -> the words after the count. A reason that is not listed here is shown as it is."""


def printable(text: str) -> str:
    """The text with whatever is no visible character escaped as `repr` does, so that no name can command a terminal.

    >>> printable("a\x1b[2J.txt")
    'a\\x1b[2J.txt'
    """
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


class Document(NamedTuple):
    """Text that belongs together.

    ``source`` is the name in reports; ``origin`` tells a person where it came from: ``notes/a.txt``,
    ``rows.jsonl:17`` (line), ``old.zip!inner/a.txt``; ``#2`` at its end is the second piece of a very long document.
    ``score`` is the number in the row's ``score_field``, where the source names one.
    """

    text: str
    source: str
    language: str
    origin: str
    score: float | None = None


class Problems:
    """What was left out: a count and the first `EXAMPLES_KEPT` examples for each source and reason.

    >>> problems = Problems()
    >>> problems.add("notes", "invalid_utf8_line", "a.txt:120")
    >>> problems.summary()
    ['notes: 1 lines with invalid UTF-8 left out (a.txt:120).']
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._examples: dict[tuple[str, str], list[str]] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Problems) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[tuple[str, str, int]]:
        """Source, reason and count, sorted."""
        return iter((source, reason, count) for (source, reason), count in sorted(self._counts.items()))

    def add(self, source: str, reason: str, example: str, count: int = 1) -> None:
        """Notes ``count`` more of a reason; ``example`` is ``file`` or ``file:line``."""
        key = (source, reason)
        self._counts[key] = self._counts.get(key, 0) + count
        examples = self._examples.setdefault(key, [])
        if example and len(examples) < EXAMPLES_KEPT:
            examples.append(example)

    def count(self, reason: str, source: str | None = None) -> int:
        """How often a reason occurred, in one source or in all."""
        return sum(n for (where, why), n in self._counts.items() if why == reason and source in (None, where))

    def examples(self, source: str, reason: str) -> tuple[str, ...]:
        return tuple(self._examples.get((source, reason), ()))

    def merge(self, other: Problems) -> None:
        """Adds another ledger to this one; its examples come after ours."""
        for key, count in other._counts.items():
            self._counts[key] = self._counts.get(key, 0) + count
            examples = self._examples.setdefault(key, [])
            examples += other._examples[key][: EXAMPLES_KEPT - len(examples)]

    def summary(self) -> list[str]:
        """One line a source and reason, for people: without control characters, whatever the files are called."""
        return [
            printable(f"{source}: {count:,} {REASONS.get(reason, reason)}{self._shown(source, reason, count)}.")
            for source, reason, count in self
        ]

    def _shown(self, source: str, reason: str, count: int) -> str:
        shown = self._examples[source, reason][:_EXAMPLES_SHOWN]
        more = ", ..." if count > len(shown) else ""
        return f" ({', '.join(shown)}{more})" if shown else ""

    def to_json(self) -> dict[str, dict[str, dict[str, Any]]]:
        """``{source: {reason: {"count": n, "examples": [...]}}}``, sorted, ready for `json.dumps`."""
        result: dict[str, dict[str, dict[str, Any]]] = {}
        for source, reason, count in self:
            entry = {"count": count, "examples": list(self._examples[source, reason])}
            result.setdefault(source, {})[reason] = entry
        return result

    @classmethod
    def from_json(cls, value: Any) -> Problems:
        """The inverse of `to_json`. Raises DataError when the value has another shape."""
        problems = cls()
        try:
            for source, reasons in value.items():
                for reason, entry in reasons.items():
                    problems._counts[str(source), str(reason)] = int(entry["count"])
                    problems._examples[str(source), str(reason)] = [str(example) for example in entry["examples"]]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError("The list of problems is malformed; build the dataset again.") from error
        return problems
