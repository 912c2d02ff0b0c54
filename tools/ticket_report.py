"""The page that tools/demo_finetune writes: what was scored on which rows, and how far it may be trusted. Text from
records of decisions and a few facts; runs nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Facts", "page", "table"]

_NAMES = {"parse": "parse", "label:label": "label", "label:when": "when", "labels": "both right"}
_TRUST = {
    "develop": "These rows were looked at while settings were chosen, so the figures flatter.",
    "held_out": "Settings were chosen on rows of another side (`--side develop`), with templates\nand words of their "
    "own; templates, words and seed of these rows were fixed before any score of them.",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What decisions do not tell. Shares are of the judged rows."""

    command: str
    side: str
    seed: int
    base: str
    train_rows: int
    keywords: float  # labels that counting keywords gets right
    never_urgent: float  # rows that always answering "could wait" gets right


def page(facts: Facts, kept: dict[str, Any], spoiled: dict[str, Any]) -> str:
    """The whole page; ``kept`` and ``spoiled`` are the records of the two decisions."""
    return f"""# Support tickets

`{facts.command}` wrote this page and the papers beside it.
Base: {facts.base}.

{kept["rows"]} rows of side `{facts.side}`, seed {facts.seed}. {_TRUST[facts.side]}
Counting keywords gets {_percent(facts.keywords)} of the labels, and always answering "could wait"
{_percent(facts.never_urgent)} of the urgencies.

{table(facts, kept, spoiled)}

- "Before" is the model without the adapter, scored before the first step. Intervals are of 95 %: Wilson's, and of
  differences Newcombe's.
- {_tuning("tickets", kept)}, on {facts.train_rows} rows.
  {_tuning("spoiled", spoiled)}, on the same rows with labels drawn by lot, from a model that was tuned
  without a contract on rows where one desk answers in words.
- The package of the first was verified: files, decision, and the answers once more. The first raw outputs of each
  side are beside this page. One seed.
"""


def table(facts: Facts, kept: dict[str, Any], spoiled: dict[str, Any]) -> str:
    """Scores of both decisions, as Markdown."""
    lines = [
        "| run | metric | before | after | difference, points | verdict |",
        "| :-- | :-- | --: | --: | --: | :-- |",
    ]
    lines += _lines("[tickets](decision.md)", kept, ("parse", "label:label", "label:when", "labels"))
    lines += _lines("[spoiled](decision-spoiled.md)", spoiled, ("parse", "label:label"))
    return "\n".join(lines)


def _lines(run: str, record: dict[str, Any], metrics: Sequence[str]) -> list[str]:
    lines = []
    for number, metric in enumerate(metrics):
        before, after, change = (
            record["baseline"][metric], record["tuned"][metric], record["compared"][metric]["difference"],
        )  # fmt: skip
        verdict = record["verdict"] if number == len(metrics) - 1 else ""
        cells = (run, _NAMES[metric], _rate(before), _rate(after), _points(change), verdict)
        lines.append("| " + " | ".join(cells) + " |")
        run = ""
    return lines


def _rate(score: dict[str, Any]) -> str:
    return f"{_percent(score['estimate'])} ({100 * score['low']:.1f} to {100 * score['high']:.1f})"


def _points(change: dict[str, Any]) -> str:
    estimate, low, high = (100 * change[name] for name in ("estimate", "low", "high"))
    return f"{estimate:+.1f} ({low:+.1f} to {high:+.1f})"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _tuning(name: str, record: dict[str, Any]) -> str:
    return f"Run `{name}`: {record['step']} steps of LoRA"
