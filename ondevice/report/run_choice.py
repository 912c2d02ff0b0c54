"""The part of a run's page on what to use of it: the checkpoints as they were judged, and the decoding settings."""

from __future__ import annotations

from typing import Any

from ondevice.report.figures import UNKNOWN, interval, loss, source_name
from ondevice.report.page import Page
from ondevice.study.selection import ROLE_NAMES
from ondevice.study.sweep_record import surely_differs

__all__ = ["decoding", "selection"]

_MOST_GROUPS = 8
_MOST_ROWS = 40
_MOST_ARMS = 20


def selection(page: Page, found: dict[str, Any] | None) -> None:
    """Which checkpoint and why, every one as it was judged, and what got worse from one to the next."""
    if found is None:
        return
    page.head("Selection")
    for sentence in found.get("sentences", ()):
        page.say(str(sentence))
    roles = [(role, ROLE_NAMES.get(role, ""), f"{step:,}") for role, step in found.get("roles", {}).items()]
    page.table(("role", "what it is", "step"), roles, words=2)
    rows = found.get("checkpoints", [])[-_MOST_ROWS:]
    groups = sorted({name for row in rows for name in row.get("quality_groups", {})})[:_MOST_GROUPS]
    page.table(
        ("step", "loss", "quality", *map(source_name, groups), "diversity", "looping"),
        [_judged(row, groups) for row in rows],
    )
    page.table(
        ("average", "of steps", "loss", "quality", "against the one for use"),
        [_average(each) for each in found.get("averages", [])],
        words=2,
    )
    for each in found.get("regressions", [])[:_MOST_ROWS]:
        fall = each["difference"]
        page.say(
            f"From step {each['before']:,} to {each['after']:,} {source_name(each['group'])} surely got worse, by "
            f"{-fall['estimate']:.1f} points (at least {-fall['high']:.1f})."
        )
    for each in found.get("skipped", []):
        page.say(f"Left out: {each['why']}")


def _average(each: dict[str, Any]) -> tuple[str, ...]:
    quality = UNKNOWN if each["quality"] is None else f"{each['quality']:.1f}"
    steps = ", ".join(f"{step:,}" for step in each["steps"])
    return each["run"], steps, loss(each["val_loss_mixed"]), quality, interval(each["against_practical"], digits=1)


def _judged(row: dict[str, Any], groups: list[str]) -> tuple[str, ...]:
    scores = (row["quality"], *(row.get("quality_groups", {}).get(name) for name in groups))
    return (
        f"{row['step']:,}",
        loss(row["val_loss_mixed"]),
        *(UNKNOWN if score is None else f"{score:.1f}" for score in scores),
        f"{row['diversity']:.3f}",
        f"{100 * row['loop_rate']:.0f} %",
    )


def decoding(page: Page, found: dict[str, Any] | None) -> None:
    """The leaderboard of the last sweep, and what its winner is worth on prompts that it was not chosen by."""
    if found is None:
        return
    page.head("Decoding settings")
    held, tuned, against = found["holdout"], found["tuning"], found["holdout_difference"]
    winner, step = found["winner"]["arm"], found["step"] or 0
    page.say(
        f"Of {len(found['leaderboard'])} settings at step {step:,}, {winner} wrote best on {tuned['n']} tuning prompts "
        f"({tuned['quality']:.1f} of 100), and {held['quality']:.1f} on {held['n']} that were held out; the default "
        f"has {found['holdout_of_default']:.1f} there."
    )
    if against["low"] is not None and winner != "default":
        sure = "surely" if surely_differs(against) else "not surely"
        page.say(
            f"On the prompts held out it differs {sure} from the default: {against['estimate']:+.1f} points (95 % "
            f"between {against['low']:+.1f} and {against['high']:+.1f})."
        )
    page.table(
        ("settings", "quality", "diversity", "looping"),
        [
            (row["arm"], f"{row['quality']:.1f}", f"{row['diversity']:.3f}", f"{100 * row['loop_rate']:.0f} %")
            for row in found["leaderboard"][:_MOST_ARMS]
        ],
    )
