"""Text in which the names of special tokens stand for their single ids; elsewhere such names are ordinary text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

__all__ = ["SpeaksSpecial", "SpecialTokens"]

_BLANKS = r"\s*"


class SpeaksSpecial(Protocol):
    """What is needed of a tokenizer: its special tokens by name, and the ids of ordinary text."""

    @property
    def special_ids(self) -> Mapping[str, int]: ...

    @property
    def stripping(self) -> Mapping[str, tuple[bool, bool]]: ...

    def encode(self, text: str) -> list[int]: ...


class SpecialTokens:
    """Cuts texts at the special tokens of a tokenizer.

    >>> SpecialTokens(tokenizer).encode("<|im_start|>user")
    [1, 4093, 7]
    """

    def __init__(self, tokenizer: SpeaksSpecial) -> None:
        self._tokenizer = tokenizer
        self._ids = dict(tokenizer.special_ids)
        names = sorted(self._ids, key=len, reverse=True)  # a longer name comes before one that it begins with
        self._names = re.compile("|".join(map(re.escape, names)) or "(?!)")
        self._cut = re.compile("|".join(f"({self._pattern(name)})" for name in names) or "(?!)")
        self._by_group = [self._ids[name] for name in names]

    def _pattern(self, name: str) -> str:
        """A token may be said to take the blanks before or after it along."""
        before, after = self._tokenizer.stripping.get(name, (False, False))
        return (_BLANKS if before else "") + re.escape(name) + (_BLANKS if after else "")

    def named_in(self, text: str) -> str | None:
        """The first name of a special token in a text."""
        found = self._names.search(text)
        return found[0] if found else None

    def marked(self, text: str, begin: str, end: str) -> str:
        """The text with ``begin`` and ``end`` around every name of a special token."""
        return self._names.sub(lambda found: f"{begin}{found[0]}{end}", text)

    def pieces(self, text: str) -> Iterator[int | str]:
        """The text as ids of special tokens and the texts between them, none empty."""
        at = 0
        for found in self._cut.finditer(text):
            if found.start() > at:
                yield text[at : found.start()]
            assert found.lastindex is not None
            yield self._by_group[found.lastindex - 1]
            at = found.end()
        if at < len(text):
            yield text[at:]

    def encode(self, text: str) -> list[int]:
        return self.ids_of(self.pieces(text))

    def ids_of(self, pieces: Iterable[int | str]) -> list[int]:
        """The ids of `pieces`."""
        found: list[int] = []
        for piece in pieces:
            found += [piece] if isinstance(piece, int) else self._tokenizer.encode(piece)
        return found
