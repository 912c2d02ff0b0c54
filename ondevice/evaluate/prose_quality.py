"""The prose score, 0-100, version 1: deterministic, of one generation, with every component.

20 % known words (share of its words that the training text has); 40 % wording: the geometric mean of rare words (those
of them that are not among its 100 most frequent) and known neighbours (words and punctuation marks that stand beside
each other there); 20 % not degenerate (1 - rep-4, zero if looping); 10 % on language; 10 % novelty. The three shares
are divided by what held-out text of the corpus reaches, at most 1, so that people's text has all of it. Multiplied by
min(1, different words / 8). Untrained models write no neighbours, young ones only frequent words, looping ones no
different ones. Knows text only.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ondevice.evaluate.degeneration import loops, rep

__all__ = ["PROSE_SCORE_VERSION", "ProseScore", "Shares", "Wording", "score_prose", "words_of"]

PROSE_SCORE_VERSION = 1
_ENOUGH_WORDS = 8
_FREQUENT = 100
_LEAST = 0.05  # of a reference, so that nothing is divided by almost nothing
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_PART = re.compile(rf"{_WORD.pattern}|[^\w\s]")


def words_of(text: str) -> list[str]:
    """Words in lower case, digits included."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Of a text: share of known words, of known rare words, of known neighbours; and how many different words."""

    known: float
    rare: float
    neighbours: float
    different: int = 0


class Wording:
    """The words and neighbours of a training text; neighbours are kept as 32-bit hashes. ``reference`` is what
    ``held_out`` text reaches, all of it where there is none."""

    def __init__(self, texts: Iterable[str], held_out: Sequence[str] = ()) -> None:
        counts: Counter[str] = Counter()
        self._neighbours: set[int] = set()
        for text in texts:
            counts.update(words_of(text))
            parts = _PART.findall(text.lower())
            self._neighbours.update(map(_pair, parts, parts[1:]))
        self._words = set(counts)
        self._frequent = {word for word, _ in counts.most_common(_FREQUENT)} if len(counts) > 2 * _FREQUENT else set()
        self.reference = self._reference([self.shares(text, whole=False) for text in held_out])

    def _reference(self, found: Sequence[Shares]) -> Shares:
        def mean(name: str) -> float:
            return max(_LEAST, sum(getattr(each, name) for each in found) / len(found)) if found else 1.0

        return Shares(known=mean("known"), rare=mean("rare"), neighbours=mean("neighbours"))

    def shares(self, text: str, *, whole: bool) -> Shares:
        """Unless ``whole``, the last word may be cut and is left out."""
        if not whole:
            text = text[: len(text) - len(re.search(r"[^\W_]*\Z", text)[0])]  # type: ignore[index]
        words, parts = words_of(text), _PART.findall(text.lower())
        if not words:
            return Shares(known=0.0, rare=0.0, neighbours=0.0)
        beside = list(map(_pair, parts, parts[1:]))
        return Shares(
            known=sum(word in self._words for word in words) / len(words),
            rare=sum(word in self._words and word not in self._frequent for word in words) / len(words),
            neighbours=sum(pair in self._neighbours for pair in beside) / len(beside) if beside else 0.0,
            different=len(set(words)),
        )


def _pair(first: str, second: str) -> int:
    return zlib.crc32(f"{first} {second}".encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, kw_only=True)
class ProseScore:
    """The components, each 0 to 1, and the score, 0 to 100."""

    known_words: float
    rare_words: float
    known_neighbours: float
    not_degenerate: float
    on_language: float
    novel: float
    different_words: int

    @property
    def score(self) -> float:
        parts = 0.2 * self.known_words + 0.4 * math.sqrt(self.rare_words * self.known_neighbours)
        parts += 0.2 * self.not_degenerate + 0.1 * self.on_language + 0.1 * self.novel
        return 100.0 * parts * min(1.0, self.different_words / _ENOUGH_WORDS)

    def to_json(self) -> dict[str, Any]:
        return {"v": PROSE_SCORE_VERSION, **asdict(self), "score": round(self.score, 6)}


def score_prose(
    generation: str,
    ids: Sequence[int],
    *,
    wording: Wording,
    language: str,
    guessed: str,
    copied: bool,
    ended: bool = False,
) -> ProseScore:
    """``ids`` are the generation's tokens, ``guessed`` the language a classifier says it is."""
    found, human = wording.shares(generation, whole=ended), wording.reference
    return ProseScore(
        known_words=min(1.0, found.known / human.known),
        rare_words=min(1.0, found.rare / human.rare),
        known_neighbours=min(1.0, found.neighbours / human.neighbours),
        not_degenerate=0.0 if loops(tuple(ids)) else 1.0 - rep(ids, 4),
        on_language=float(guessed == language),
        novel=float(not copied),
        different_words=found.different,
    )
