"""What a study's page says of losses that rose: over-trained sources, forgotten ones, and what to do about each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ondevice.report.figures import (
    UNKNOWN,
    between,
    duration,
    interval,
    listed,
    millions,
    percent,
    source_name,
)

__all__ = ["RISE_HEAD", "advice", "behind_mixture", "rise_rows", "seed_advice", "surely_rose"]

RISE_HEAD = ("arm", "source", "rise while read", "rise after", "why", "tokens read", "epochs", "read until")
_OVER_TRAINED = "over-trained, rising while read again"
_FORGOTTEN = "forgotten, rising after the last reading"
_WHY = {
    "over-trained": "over-trained",
    "forgotten": "forgotten",
    "first pass": "rose in its first pass",
    "unread": "never read; others pushed it up",
}


def surely_rose(arm: dict[str, Any]) -> bool:
    """Whether the mixed loss ends surely above its lowest mean."""
    rise = arm["end_minus_best"]
    return bool(arm["tokens_after_best"] and rise["surely"] and rise["estimate"] > 0)


def behind_mixture(arm: dict[str, Any]) -> str:
    """What single sources surely did; empty where none did anything."""
    rises = arm.get("rises", {})
    over, forgotten = _named(rises, "over-trained"), _named(rises, "forgotten")
    told = (over and f"{_OVER_TRAINED}: {over}.", forgotten and f"{_FORGOTTEN}: {forgotten}.")
    return " ".join(text[0].upper() + text[1:] if place else text for place, text in enumerate(filter(None, told)))


def advice(arm: dict[str, Any]) -> str:
    """Of an arm that `surely_rose`: from where, by how much, of what, and what would help."""
    rise, after, rises = arm["end_minus_best"], arm["tokens_after_best"], arm.get("rises", {})
    best, share = arm["best"], after / max(1, arm["end"]["tokens"] - arm["tokens"][0])
    return (
        f"lowest ({best['loss']:.3f}) at {millions(best['tokens'])} tokens, then surely up by "
        f"{abs(rise['estimate']):.3f} nats to the end ({between(rise)}). {millions(after)} tokens, {percent(share)} of "
        f"the training, came after it and cost {duration(share * arm['cost']['worked_s'])} a run: "
        f"{_because(rises)}{_seeds_agree(arm)}"
    )


def _seeds_agree(arm: dict[str, Any]) -> str:
    """Where each seed had its own lowest."""
    place = dict(zip(arm["steps"], arm["tokens"], strict=True))
    lowest = [place[each["best_step"]] for each in arm["shape"].values() if each["best_step"] in place]
    if len(lowest) < 2:
        return ""
    low, high = millions(min(lowest)), millions(max(lowest))
    return f" Every seed was lowest at {low}." if low == high else f" Seeds were lowest between {low} and {high}."


def seed_advice(what: str, rises: dict[str, Any]) -> str:
    """What one seed's mixed curve advises, in the light of what its sources did over all seeds."""
    if what == "stop" and _named(rises, "forgotten") and not _named(rises, "over-trained"):
        return "mix: forgotten, not over-trained"
    return what


def _because(rises: dict[str, Any]) -> str:
    over, forgotten = _named(rises, "over-trained"), _named(rises, "forgotten")
    if over and forgotten:
        return (
            f"{_OVER_TRAINED}: {over}; {_FORGOTTEN}: {forgotten}. "
            "Stop earlier for the first, mix or come back for the second."
        )
    if over:
        return f"{_OVER_TRAINED}: {over}. Stop earlier, or give more different text."
    if forgotten:
        return (
            f"{_FORGOTTEN}: {forgotten}. That is the order of the text and not too "
            "many passes over it; mix the sources or come back to early ones rather than stop earlier."
        )
    if first := _named(rises, "first pass"):
        return f"risen in the first pass, which no repetition explains: {first}. Try a lower learning rate."
    return "no source that was read surely rose alone, so whether it was over-trained is not known."


def _named(rises: dict[str, Any], cause: str) -> str:
    """``'general (+1.20, 98.3 % between +1.10 and +1.30) and news (...)'``; empty where no source is."""
    names = [(name, each) for name, each in rises.items() if each["cause"] == cause]
    return listed(_amounts(name, each, cause) for name, each in names) if names else ""


def _amounts(name: str, each: dict[str, Any], cause: str) -> str:
    found = each["after_read" if cause == "forgotten" else "while_read"]
    again = f"read {each['epochs']:.1f} times, " if cause == "over-trained" else ""
    sure = "" if found["low"] is None else f", {between(found)}"
    return f"{source_name(name)} ({again}{found['estimate']:+.3f} nats{sure})"


def rise_rows(arms: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Of every arm and source, under `RISE_HEAD`."""
    for name, arm in arms.items():
        for source, each in arm.get("rises", {}).items():
            yield (
                name,
                source_name(source),
                interval(each["while_read"] or each["outside"]),
                interval(each["after_read"]),
                _WHY.get(each["cause"], "no sure rise"),
                millions(arm["exposure"]["tokens"].get(source, 0.0)),
                UNKNOWN if each["epochs"] is None else f"{each['epochs']:.2f}",
                percent(each["read_until"]) if each["read_until"] is not None else "never",
            )
