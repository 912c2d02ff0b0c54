"""Figures of examples: how long they are, and how often each label is the answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from ondevice.data.examples import Example

__all__ = ["Counts", "imbalance"]

_MOST_LABELS, _LONGEST_LABEL = 30, 40  # beyond which an answer is no label
_FEW, _UNEVEN = 5, 10.0  # rows of a label; times that the commonest label may be as frequent


class Counts:
    """Filled row by row. Lengths are tokens where there is a tokenizer, else letters."""

    def __init__(self, *, tokenizer: bool) -> None:
        self._unit = "tokens" if tokenizer else "letters"
        self._whole: list[int] = []
        self._learned: list[int] = []
        self._labels: dict[str, tuple[Counter[str], Counter[str]]] = {}
        self._answers = 0

    def add(self, example: Example, *, held_out: bool, tokens: tuple[int, int] | None) -> None:
        """``tokens``: of the whole example and of what is learned of it."""
        whole, learned = tokens or (len(example.question) + len(example.answer), len(example.answer))
        self._whole.append(whole)
        self._learned.append(learned)
        self._answers += 1
        for name, value in _label_values(example.answer):
            self._labels.setdefault(name, (Counter(), Counter()))[held_out][value] += 1

    def lengths(self, context: int | None) -> dict[str, Any]:
        """Quantiles of whole examples and of their answers; ``too_long`` for a context."""
        if not self._whole:
            return {}
        found: dict[str, Any] = {"unit": self._unit}
        found |= {"example": _quantiles(self._whole), "answer": _quantiles(self._learned)}
        found["learned_share"] = round(sum(self._learned) / sum(self._whole), 4)
        if context is not None and self._unit == "tokens":
            found["too_long"] = sum(length - 1 > context for length in self._whole)
        return found

    def labels(self) -> dict[str, dict[str, dict[str, int]]]:
        """Field of the answer -> side -> label -> rows; the field is empty where the whole answer is a label."""
        return {
            name: {"train": dict(sides[0].most_common()), "held_out": dict(sides[1].most_common())}
            for name, sides in self._labels.items()
            if _are_labels(sides[0] + sides[1])
        }


def _label_values(answer: str) -> Iterator[tuple[str, str]]:
    """What may be labels in an answer: short values of a JSON object, or the whole answer."""
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        found = None
    values = found if isinstance(found, dict) else {"": answer}
    for name, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value)
        if not isinstance(value, dict | list) and len(text) <= _LONGEST_LABEL:
            yield name, text


def _are_labels(values: Counter[str]) -> bool:
    return 1 < len(values) <= _MOST_LABELS and values.total() >= 2 * len(values)


def _quantiles(lengths: list[int]) -> dict[str, int]:
    low, middle, high, top = np.percentile(lengths, [0, 50, 95, 100])
    return {"least": int(low), "median": int(middle), "p95": int(high), "most": int(top), "total": sum(lengths)}


def imbalance(labels: dict[str, dict[str, dict[str, int]]], *, held_out: bool) -> Iterator[str]:
    """Sentences about labels that are rare, far from even, or on one side only."""
    for name, sides in labels.items():
        what = f"'{name}'" if name else "the answer"
        train = sides["train"]
        rare = [f"{label} ({count})" for label, count in train.items() if count < _FEW]
        if rare:
            yield f"{what}: few rows teach {', '.join(rare)}; add some of each."
        if train and max(train.values()) > _UNEVEN * min(train.values()):
            most, least = max(train, key=lambda label: train[label]), min(train, key=lambda label: train[label])
            yield f"{what}: {most} is {train[most] / train[least]:.0f} times as frequent as {least}."
        if missing := [label for label in sides["held_out"] if label not in train]:
            yield f"{what}: held-out rows expect {', '.join(missing)}, which no row teaches."
        if held_out and (untested := [label for label in train if label not in sides["held_out"]]):
            yield f"{what}: no held-out row expects {', '.join(untested)}."
