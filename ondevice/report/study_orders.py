"""The part of a study's page on the order of the text: what was read early against late, what was forgotten."""

from __future__ import annotations

from typing import Any

from ondevice.report.figures import interval, listed, percent, source_name
from ondevice.report.page import Chart, Curve, Page

__all__ = ["orders"]

_LONG_SINCE = 0.05  # of the training: less is the distance of evaluations


def orders(page: Page, effects: dict[str, Any]) -> None:
    """Nothing for arms of one source; one sentence where no arm read anything early."""
    if not effects:
        return
    page.head("Order effects")
    apart = {name: found for name, found in effects.items() if found["gap"] is not None}
    if level := [name for name in effects if name not in apart]:
        page.say(f"In {listed(level)} the sources were read side by side, so that none is early or late.")
    for name, found in apart.items():
        page.say(f"{name}: {_gap(found)}")
    if apart:
        page.say("Below 0 what was read late ends with the lower loss, above 0 what was read early.")
    curves = tuple(
        Curve(name, tuple(zip(map(float, found["gap"]["tokens"]), found["gap"]["curve"], strict=True)))
        for name, found in apart.items()
    )
    page.chart(Chart(title="Late half - early half", x="tokens", y="nats a token", curves=curves))
    _recency(page, effects)


def _gap(found: dict[str, Any]) -> str:
    early, late = (listed(map(source_name, found[side])) for side in ("early", "late"))
    against = "beyond that of the reference" if found["against_reference"] else "no reference to subtract"
    text = (
        f"early {early}; late {late}. Late - early at the end: {interval(found['gap']['end'])} nats, {against}; on the "
        f"mean of the training {interval(found['gap']['mean_over_training'])}."
    )
    if found["gap"]["quality"] is None:
        return text
    points = interval(found["gap"]["quality"], digits=1)
    return f"{text} In quality {points} points; above 0 what was read late is written better."


def _recency(page: Page, effects: dict[str, Any]) -> None:
    """Of the arms in which something was long not read."""
    stale = {
        name: found
        for name, found in effects.items()
        if any(each["since_read"] > _LONG_SINCE for each in found["recency"]["sources"].values())
    }
    rows = [
        (
            name,
            source_name(source),
            interval(each["forgotten"]),
            percent(each["since_read"]),
            percent(found["centres"][source]),
        )
        for name, found in stale.items()
        for source, each in found["recency"]["sources"].items()
    ]
    page.table(("arm", "source", "nats above its best", "since it was read", "read on the mean at"), rows, words=2)
    for name, found in stale.items():
        slope = found["recency"]["nats_forgotten_over_whole_training"]
        if slope is not None:
            page.say(f"{name}: recency, nats forgotten if the whole training went by: {interval(slope)}.")
    if rows:
        page.say("Shares of the training: how much of it went by since a source was last read, and where it was read.")
