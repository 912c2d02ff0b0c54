"""What one source of a reading said: values by the names of `Reading`, where each came from, why others are unknown.

`fold` makes one reading of many answers. Pure: no clock, no disk.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Answer", "Folded", "fold", "nothing"]


@dataclass(frozen=True)
class Answer:
    """``sources`` has a word for every value that is not None, ``unknown`` a reason for every other one."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, source: str, values: dict[str, Any], unknown: dict[str, str]) -> Answer:
        """One source for all the values; those that are None need their reason in ``unknown``."""
        known = {name: value for name, value in values.items() if value is not None}
        return cls(
            known, dict.fromkeys(known, source), {name: why for name, why in unknown.items() if name not in known}
        )


@dataclass(frozen=True)
class Folded:
    """The answers of all sources as one."""

    values: dict[str, Any]
    sources: dict[str, str]
    ages_s: dict[str, float]
    unknown: dict[str, str]


def nothing(names: Iterable[str], reason: str) -> Answer:
    """No value at all, for one reason."""
    return Answer(unknown=dict.fromkeys(names, reason))


def fold(told: Iterable[tuple[Answer, float]]) -> Folded:
    """Answers with their ages in seconds, the most trusted first.

    Of two values the first is taken; of two reasons the last, because the last resort is what a person can mend.
    """
    folded = Folded({}, {}, {}, {})
    for answer, age_s in told:
        fresh = {name: value for name, value in answer.values.items() if name not in folded.values}
        folded.values.update(fresh)
        folded.sources.update({name: answer.sources[name] for name in fresh})
        folded.ages_s.update(dict.fromkeys(fresh, round(max(age_s, 0.0), 1)))
        folded.unknown.update(answer.unknown)
    for name in folded.values:
        folded.unknown.pop(name, None)
    return folded
