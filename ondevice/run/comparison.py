"""Runs side by side: what their recipes have different, and the best losses each reached within the same tokens.

Pure values from recipes and stories, of runs that live, died or were copied from elsewhere. Knows no screen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ondevice.run.digest import Digest
from ondevice.run.recipe import Recipe
from ondevice.run.telemetry import as_number, as_numbers

__all__ = ["MIXED", "Measurement", "Record", "best_within", "differences", "equal_tokens", "read_record"]

MIXED = ""  # the name of the mixture of all sources
MEASURES = {"nats": "val_loss", "bits": "bits_per_byte"}  # a token; a byte, where tokenizers differ


@dataclass(frozen=True)
class Measurement:
    """One evaluation: ``nats`` a token and ``bits`` a byte by source; the mixture has nats only."""

    step: int
    tokens: int
    nats: dict[str, float]
    bits: dict[str, float]


@dataclass
class Record:
    """The story of one run, and every evaluation that still counts."""

    story: Digest = field(default_factory=Digest)
    measurements: list[Measurement] = field(default_factory=list)

    def fold(self, record: dict[str, Any]) -> None:
        """Takes one record into account. What a kill took away is forgotten, as in the digest."""
        self.story.fold(record)
        if record.get("kind") == "launch":
            resumed = record.get("resumed_step")
            kept = resumed if type(resumed) is int else -1
            self.measurements = [each for each in self.measurements if each.step <= kept]
        elif record.get("kind") == "eval" and (found := _measurement(record)) is not None:
            self.measurements.append(found)


def read_record(records: Iterable[dict[str, Any]]) -> Record:
    """Folds all records."""
    result = Record()
    for record in records:
        result.fold(record)
    return result


def _measurement(record: dict[str, Any]) -> Measurement | None:
    step, tokens = record.get("step"), as_number(record.get("tokens"))
    if type(step) is not int or tokens is None:
        return None
    nats, bits = (as_numbers(record.get(key)) for key in MEASURES.values())
    mixed = as_number(record.get("val_loss_mixed"))
    return Measurement(step, int(tokens), nats | ({} if mixed is None else {MIXED: mixed}), bits)


def equal_tokens(records: Sequence[Record]) -> int | None:
    """As many tokens as every run had learned from at an evaluation; None where one was never evaluated."""
    last = [max((each.tokens for each in record.measurements), default=None) for record in records]
    return None if None in last else min(tokens for tokens in last if tokens is not None)


def best_within(record: Record, tokens: int | None, *, measure: str) -> dict[str, float]:
    """The lowest loss by source among evaluations within so many tokens (None: all). ``measure``: of `MEASURES`."""
    best: dict[str, float] = {}
    for each in record.measurements:
        if tokens is None or each.tokens <= tokens:
            losses: dict[str, float] = getattr(each, measure)
            best |= {name: loss for name, loss in losses.items() if loss < best.get(name, loss + 1)}
    return best


def differences(recipes: Sequence[Recipe]) -> dict[str, list[Any]]:
    """Key -> its value in each recipe, for keys that are not the same in all; what has no such key has None."""
    flat = [dict(_flat(dataclasses.asdict(recipe), "")) for recipe in recipes]
    keys = dict.fromkeys(key for each in flat for key in each)
    rows = {key: [each.get(key) for each in flat] for key in keys if not key.startswith(("why", "v."))}
    return {key: row for key, row in rows.items() if key != "v" and any(value != row[0] for value in row)}


def _flat(value: dict[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        here = f"{path}.{key}" if path else key
        if isinstance(inner, dict):
            yield from _flat(inner, here)
        else:
            yield here, list(inner) if isinstance(inner, tuple) else inner
