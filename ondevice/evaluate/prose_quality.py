"""The prose score, 0-100, version 1: deterministic, of one generation, with every component.

30 % known words (share of its words that the training text has); 20 % known pairs (neighbouring words that stand beside
each other there); 20 % not degenerate (1 - rep-4, zero if looping); 20 % on language; 10 % novelty. Multiplied by
min(1, different words / 8). Untrained models write no known words, looping ones no different ones. Knows text only.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ondevice.evaluate.degeneration import loops, rep

__all__ = ["PROSE_SCORE_VERSION", "ProseScore", "Wording", "score_prose", "words_of"]

PROSE_SCORE_VERSION = 1
_ENOUGH_WORDS = 8
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def words_of(text: str) -> list[str]:
    """Words in lower case, digits included."""
    return _WORD.findall(text.lower())


class Wording:
    """The words and the pairs of neighbouring words of a training text; pairs are kept as 32-bit hashes."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.words: set[str] = set()
        self.pairs: set[int] = set()
        for text in texts:
            words = words_of(text)
            self.words.update(words)
            self.pairs.update(map(_pair, words, words[1:]))

    def known(self, text: str, *, whole: bool) -> tuple[float, float, int]:
        """Share of known words, share of known pairs, and how many different words. Unless ``whole``, the last word
        may be cut and is left out."""
        words = words_of(text)
        if not whole and words and text[-1:].isalnum():
            words = words[:-1]
        if not words:
            return 0.0, 0.0, 0
        pairs = list(map(_pair, words, words[1:]))
        known = sum(word in self.words for word in words) / len(words)
        beside = sum(pair in self.pairs for pair in pairs) / len(pairs) if pairs else 0.0
        return known, beside, len(set(words))


def _pair(first: str, second: str) -> int:
    return zlib.crc32(f"{first} {second}".encode("utf-8", "surrogatepass"))


@dataclass(frozen=True, kw_only=True)
class ProseScore:
    """The components, each 0 to 1, and the score, 0 to 100."""

    known_words: float
    known_pairs: float
    not_degenerate: float
    on_language: float
    novel: float
    different_words: int

    @property
    def score(self) -> float:
        parts = 0.3 * self.known_words + 0.2 * self.known_pairs + 0.2 * self.not_degenerate
        parts += 0.2 * self.on_language + 0.1 * self.novel
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
    known, beside, different = wording.known(generation, whole=ended)
    return ProseScore(
        known_words=known,
        known_pairs=beside,
        not_degenerate=0.0 if loops(tuple(ids)) else 1.0 - rep(ids, 4),
        on_language=float(guessed == language),
        novel=float(not copied),
        different_words=different,
    )
