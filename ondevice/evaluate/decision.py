"""The rule stated before the scores: keep, iterate or discard what was tuned. Pure; knows no models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ondevice.errors import UsageError
from ondevice.evaluate.intervals import Interval

__all__ = ["RULE_VERSION", "Decision", "Rule", "decide"]

RULE_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Rule:
    """``primary`` must rise; each of ``guards`` may fall by at most its tolerance. Raises UsageError."""

    primary: str
    guards: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.primary in self.guards:
            raise UsageError(f"{self.primary}: is the primary metric and cannot be guarded too.")
        for name, tolerance in self.guards.items():
            if not 0 <= tolerance < math.inf:
                raise UsageError(f"The tolerance of {name} is {tolerance}; it must be 0 or more.")

    def to_json(self) -> dict[str, Any]:
        return {"v": RULE_VERSION, "primary": self.primary, "guards": dict(self.guards)}


@dataclass(frozen=True, kw_only=True)
class Decision:
    """``verdict`` and a sentence why."""

    verdict: Literal["keep", "iterate", "discard"]
    why: str


def decide(rule: Rule, differences: Mapping[str, Interval]) -> Decision:
    """``differences`` are tuned minus baseline on the same rows, higher is better. Raises UsageError for a metric of
    the rule that was not measured."""
    missing = [name for name in (rule.primary, *rule.guards) if name not in differences]
    if missing:
        raise UsageError(f"The rule speaks of {missing[0]}, which was not measured.")
    primary = differences[rule.primary]
    for name, tolerance in rule.guards.items():
        if differences[name].high < -tolerance:
            return Decision(
                verdict="discard", why=f"{name} surely falls by more than {tolerance:g} ({_of(differences[name])})."
            )
    if not primary.estimate > 0:
        return Decision(verdict="discard", why=f"{rule.primary} does not rise ({_of(primary)}).")
    fallen = [name for name, tolerance in rule.guards.items() if not differences[name].estimate >= -tolerance]
    if primary.above_zero and not fallen:
        return Decision(verdict="keep", why=f"{rule.primary} rises ({_of(primary)}) and no guarded metric falls.")
    if fallen:
        return Decision(verdict="iterate", why=f"{fallen[0]} falls ({_of(differences[fallen[0]])}).")
    return Decision(verdict="iterate", why=f"The rise of {rule.primary} may be chance ({_of(primary)}).")


def _of(interval: Interval) -> str:
    return f"{interval.estimate:+.3f}, 95 % between {interval.low:+.3f} and {interval.high:+.3f}, n {interval.n}"
