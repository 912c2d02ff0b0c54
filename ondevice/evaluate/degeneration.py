"""How badly generated text repeats itself, version 1, on token ids; knows no model and no text.

distinct-n = unique / total n-grams of a group; rep-n = 1 - distinct-n within one generation (0 where it is too short to
have an n-gram); ``repeated_4gram_any`` = share with rep-4 above 0, ``repeated_4gram_ratio`` = mean rep-4; loop_rate =
share whose last 3k tokens are k tokens three times over, k <= 16; completion_rate = share that ended by itself or
reached its length without looping; diversity = mean over generations of (1 - rep-2)(1 - rep-3)(1 - rep-4).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["DEGENERATION_VERSION", "Degeneration", "Tokens", "degeneration", "distinct", "diversity", "loops", "rep"]

DEGENERATION_VERSION = 1
LONGEST_LOOP = 16


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What one generation wrote; ``finish`` is ``"stop"`` (it ended by itself) or ``"length"``."""

    ids: tuple[int, ...]
    finish: str


@dataclass(frozen=True, kw_only=True)
class Degeneration:
    """Of ``n`` generations; None where there is nothing to count."""

    n: int
    distinct_1: float | None
    distinct_2: float | None
    distinct_3: float | None
    distinct_4: float | None
    rep_2: float
    rep_3: float
    repeated_4gram_ratio: float
    repeated_4gram_any: float
    loop_rate: float
    completion_rate: float
    diversity: float

    def to_json(self) -> dict[str, Any]:
        return {"v": DEGENERATION_VERSION, **asdict(self)}


def _ngrams(ids: Sequence[Hashable], n: int) -> Iterator[tuple[Hashable, ...]]:
    return (tuple(ids[start : start + n]) for start in range(len(ids) - n + 1))


def distinct(generations: Sequence[Sequence[Hashable]], n: int) -> float | None:
    """Unique / total n-grams of all together; None where there is no n-gram."""
    grams = [gram for ids in generations for gram in _ngrams(ids, n)]
    return len(set(grams)) / len(grams) if grams else None


def rep(ids: Sequence[Hashable], n: int) -> float:
    """1 - distinct-n of one generation."""
    share = distinct([ids], n)
    return 0.0 if share is None else 1.0 - share


def loops(ids: Sequence[Hashable]) -> int:
    """The smallest k for which the last 3k tokens are k tokens three times over, else 0."""
    for k in range(1, min(LONGEST_LOOP, len(ids) // 3) + 1):
        last = ids[len(ids) - 3 * k :]
        if last[:k] == last[k : 2 * k] == last[2 * k :]:
            return k
    return 0


def diversity(ids: Sequence[Hashable]) -> float:
    """1 for a text without any repeated n-gram, n = 2..4; towards 0 the more it repeats."""
    return (1.0 - rep(ids, 2)) * (1.0 - rep(ids, 3)) * (1.0 - rep(ids, 4))


def degeneration(generations: Sequence[Tokens]) -> Degeneration:
    """All measures of a group. Raises ValueError for an empty one."""
    if not generations:
        raise ValueError("no generations")
    n, texts = len(generations), [each.ids for each in generations]
    looping = [loops(ids) > 0 for ids in texts]
    fourfold = [rep(ids, 4) for ids in texts]
    completed = [each.finish == "stop" or not loop for each, loop in zip(generations, looping, strict=True)]
    return Degeneration(
        n=n,
        distinct_1=distinct(texts, 1),
        distinct_2=distinct(texts, 2),
        distinct_3=distinct(texts, 3),
        distinct_4=distinct(texts, 4),
        rep_2=sum(rep(ids, 2) for ids in texts) / n,
        rep_3=sum(rep(ids, 3) for ids in texts) / n,
        repeated_4gram_ratio=sum(fourfold) / n,
        repeated_4gram_any=sum(each > 0 for each in fourfold) / n,
        loop_rate=sum(looping) / n,
        completion_rate=sum(completed) / n,
        diversity=sum(diversity(ids) for ids in texts) / n,
    )
