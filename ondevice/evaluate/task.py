"""The score of a task whose answers are JSON: parse rate, key-set rate, label accuracy, each with n and an interval.

An answer that does not parse is wrong in everything that follows. Baseline and tuned answers of the same rows are
compared by `compare`. Knows answers and expectations, not models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ondevice.evaluate.intervals import Interval, Paired, mcnemar_exact, newcombe_paired, wilson

__all__ = ["TASK_VERSION", "Comparison", "Judged", "compare", "judge", "task_score"]

TASK_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One answer: each metric's name -> whether it is right."""

    parsed: Any  # None where the answer is not a JSON object
    right: Mapping[str, bool]


def judge(answer: str, expected: Mapping[str, Any], *, labels: Sequence[str]) -> Judged:
    """``labels`` are the fields whose value must equal the expected one; ``label:FIELD`` counts each, ``labels`` all.

    The key set is right where the answer has the expected fields and no others.
    """
    try:
        parsed = json.loads(answer)
    except (ValueError, RecursionError):
        parsed = None
    found = parsed if isinstance(parsed, dict) else None
    right = {"parse": found is not None, "keys": found is not None and set(found) == set(expected)}
    for name in labels:
        right[f"label:{name}"] = found is not None and name in found and _same(found[name], expected.get(name))
    right["labels"] = all(right[f"label:{name}"] for name in labels) and right["parse"]
    return Judged(parsed=found, right=right)


def _same(value: Any, expected: Any) -> bool:
    """Equal, where ``true`` is not 1."""
    return type(value) is type(expected) and bool(value == expected)


def task_score(rows: Sequence[Judged]) -> dict[str, Interval]:
    """Share right of every metric with its Wilson interval. Raises ValueError where rows have unlike metrics."""
    if not rows:
        return {}
    names = rows[0].right.keys()
    if any(row.right.keys() != names for row in rows):
        raise ValueError("rows were judged by different metrics")
    return {name: wilson(sum(row.right[name] for row in rows), len(rows)) for name in names}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Tuned minus baseline of one metric on the same rows, and McNemar's exact p."""

    difference: Interval
    p: float
    table: Paired

    def to_json(self) -> dict[str, Any]:
        return {"difference": asdict(self.difference), "p": self.p, "table": asdict(self.table)}


def compare(baseline: Sequence[Judged], tuned: Sequence[Judged]) -> dict[str, Comparison]:
    """Every metric, row by row. Raises ValueError where the rows are not the same number."""
    found = {}
    for name in baseline[0].right if baseline else ():
        table = Paired.of([row.right[name] for row in baseline], [row.right[name] for row in tuned])
        found[name] = Comparison(difference=newcombe_paired(table), p=mcnemar_exact(table), table=table)
    return found
