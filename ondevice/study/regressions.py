"""What one checkpoint wrote after prompts against what the next one wrote: what surely got worse. Pure, version 1.

An answer regresses where it was right (it begins with what the prompt expected, and holds what it was to contain) and
is not any more. A measure regresses where the mean of the paired differences is worse than 0 by an interval of 95 %,
adjusted for all comparisons of the study. Measures are those of `ondevice.evaluate.degeneration`, a prompt at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from ondevice.evaluate.degeneration import diversity, loops, rep
from ondevice.evaluate.intervals import Interval, paired_mean

__all__ = ["REGRESSIONS_VERSION", "Answers", "Change", "changes", "is_right"]

REGRESSIONS_VERSION = 1

_MEASURES: dict[str, Callable[[tuple[int, ...]], float]] = {  # each the better the higher
    "diversity": diversity,
    "unrepeated_4grams": lambda ids: 1.0 - rep(ids, 4),
    "unlooped": lambda ids: float(loops(ids) == 0),
}


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What the checkpoint of a part wrote after each prompt, and whether that was right (None: nothing was asked)."""

    part: str
    step: int
    ids: tuple[tuple[int, ...], ...]
    right: tuple[bool | None, ...]


@dataclass(frozen=True, kw_only=True)
class Change:
    """From one part to the next. ``lost`` and ``gained`` are prompts by number whose answer became wrong and right,
    ``looping`` those whose text now goes in circles; ``worse`` the measures that surely fell."""

    before: str
    after: str
    lost: tuple[int, ...]
    gained: tuple[int, ...]
    looping: tuple[int, ...]
    worse: dict[str, Interval]

    @property
    def regressed(self) -> bool:
        return bool(self.lost or self.looping or self.worse)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def is_right(text: str, *, expected: str, contains: str) -> bool | None:
    """Whether a text answers; space before it does not count.

    >>> is_right(" Paris, of course", expected="Paris", contains="")
    True
    """
    if not expected.strip() and not contains:
        return None
    return text.lstrip().startswith(expected.strip()) and contains in text


def changes(answers: Sequence[Answers]) -> list[Change]:
    """From each to the next, in order; all have the same prompts."""
    pairs = list(pairwise(answers))
    level = 1 - 0.05 / max(1, len(pairs) * len(_MEASURES))
    return [_change(before, after, level) for before, after in pairs]


def _change(before: Answers, after: Answers, level: float) -> Change:
    right = list(enumerate(zip(before.right, after.right, strict=True)))
    looping = enumerate(zip(before.ids, after.ids, strict=True))
    worse = {}
    for name, measure in _MEASURES.items():
        pairs = zip(before.ids, after.ids, strict=True)
        difference = paired_mean([measure(new) - measure(old) for old, new in pairs], level=level)
        if difference.high < 0:
            worse[name] = difference
    return Change(
        before=before.part,
        after=after.part,
        lost=tuple(number for number, (old, new) in right if old and new is False),
        gained=tuple(number for number, (old, new) in right if old is False and new),
        looping=tuple(number for number, (old, new) in looping if not loops(old) and loops(new)),
        worse=worse,
    )
