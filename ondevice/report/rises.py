"""What a study's page says of losses that rose: over-trained sources, forgotten ones, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ondevice.report.figures import UNKNOWN, interval, millions, percent

__all__ = ["RISE_HEAD", "advice", "rise_rows", "seed_advice"]

RISE_HEAD = ("arm", "source", "read until", "epochs", "rise while read", "rise after", "why")
_WHY = {
    "over-trained": "over-trained",
    "forgotten": "forgotten",
    "first pass": "rose in its first pass",
    "unread": "never read; others pushed it up",
}


def advice(arm: dict[str, Any]) -> str:
    """In a sentence or two: whether the end is worse than the best, of what, and what would help."""
    rise, after, rises = arm["end_minus_best"], arm["tokens_after_best"], arm.get("rises", {})
    if not after:
        return f"its last evaluation is the lowest on the mean; more training may lower it further.{_though(rises)}"
    spent = f"{millions(after)} tokens ({percent(after / max(1, arm['end']['tokens'] - arm['tokens'][0]))} of them)"
    if not (rise["surely"] and rise["estimate"] > 0):
        told = f"{spent} came after the lowest mean, but whether the loss rose is not sure ({interval(rise)} nats)."
        return told + _though(rises)
    return f"{spent} came after the best and raised the mixed loss by {interval(rise)} nats: {_because(rises)}"


def seed_advice(what: str, rises: dict[str, Any]) -> str:
    """What one seed's mixed curve advises, in the light of what its sources did over all seeds."""
    if what == "stop" and _named(rises, "forgotten") and not _named(rises, "over-trained"):
        return "mix: forgotten, not over-trained"
    return what


def _because(rises: dict[str, Any]) -> str:
    over, forgotten = _named(rises, "over-trained"), _named(rises, "forgotten")
    if over and forgotten:
        return (
            f"{over} over-trained (rising while still read again), and {forgotten} forgotten (rising after the last "
            "reading); stop earlier for the first, mix or come back for the second."
        )
    if over:
        return f"{over} over-trained, rising while still read again; stop earlier, or give more different text."
    if forgotten:
        return (
            f"{forgotten} forgotten, rising only after the last reading. That is the order of the text and not too "
            "many passes over it; mix the sources or come back to early ones rather than stop earlier."
        )
    if first := _named(rises, "first pass"):
        return f"{first} rising in the first pass, which no repetition explains; try a lower learning rate."
    return "no source that was read surely rose alone, so whether it was over-trained is not known."


def _though(rises: dict[str, Any]) -> str:
    """Where the mixture hides what single sources did."""
    over, forgotten = _named(rises, "over-trained"), _named(rises, "forgotten")
    told = " and ".join(
        text for text in (over and f"{over} over-trained", forgotten and f"{forgotten} forgotten") if text
    )
    return f" Behind the mixture, {told}." if told else ""


def _named(rises: dict[str, Any], cause: str) -> str:
    """``'general and news are'``; empty where no source is."""
    names = [name for name, each in rises.items() if each["cause"] == cause]
    if not names:
        return ""
    return f"{', '.join(names[:-1])} and {names[-1]} are" if len(names) > 1 else f"{names[0]} is"


def rise_rows(arms: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Of every arm and source, under `RISE_HEAD`."""
    for name, arm in arms.items():
        for source, each in arm.get("rises", {}).items():
            yield (
                name,
                source,
                percent(each["read_until"]) if each["read_until"] is not None else "never",
                UNKNOWN if each["epochs"] is None else f"{each['epochs']:.2f}",
                interval(each["while_read"] or each["outside"]),
                interval(each["after_read"]),
                _WHY.get(each["cause"], "no sure rise"),
            )
