"""The part of a study's page on what its arms write: scores, what they are made of, best text or lowest loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ondevice.report.figures import UNKNOWN, interval, source_name
from ondevice.report.page import Page

__all__ = ["quality"]

_COMPONENTS = {
    "n": "prompts",
    "parses": "parses",
    "not_degenerate": "no repeats",
    "on_language": "on language",
    "continues": "goes on",
    "novel": "no copy",
    "code_tokens": "code tokens",
}


def quality(page: Page, arms: dict[str, Any], comparisons: list[dict[str, Any]]) -> None:
    """Nothing where nobody judged."""
    judged = {name: arm["quality"] for name, arm in arms.items() if arm["quality"]}
    if not judged:
        return
    page.head("Quality of what is written")
    rows = [
        (name, source_name(group) or "all", _spread(found["end"][group]), _spread(found["best"][group]))
        for name, found in judged.items()
        for group in found["end"]
    ]
    page.table(("arm", "group", "last checkpoint", "best checkpoint"), rows, words=2)
    _made_of(page, judged)
    page.table(
        ("arm", "best by quality, steps", "lowest loss, steps", "difference in points"),
        [(name, *_bests(found)) for name, found in judged.items()],
        words=3,
    )
    page.say(
        "Steps by seed. The difference is never below 0, since the best was chosen by it: what is sure of it stands in "
        "the selection of each run."
    )
    pairs = list(_pairs(comparisons))
    page.table(("pair", "group", "difference in points", "differs", "effect size"), pairs, words=2)
    if pairs:
        page.say(
            "Of the last judged checkpoint of each run, in pairs of seeds, with the intervals of the losses above."
        )


def _spread(found: dict[str, Any] | None) -> str:
    if found is None:
        return UNKNOWN
    deviation = found["standard_deviation"]
    return f"{found['mean']:.1f}" + ("" if deviation is None else f" (sd {deviation:.1f})")


def _made_of(page: Page, judged: dict[str, Any]) -> None:
    """The components of the last checkpoint's scores, where they were kept."""
    found = [
        (name, group, each) for name, quality in judged.items() for group, each in quality.get("components", {}).items()
    ]
    names = [key for key in _COMPONENTS if any(key in each for _, _, each in found)]
    page.table(
        ("arm", "group", *(_COMPONENTS[key] for key in names)),
        [(name, source_name(group), *(_component(key, each.get(key)) for key in names)) for name, group, each in found],
        words=2,
    )
    if names:
        page.say(
            "Of the last checkpoint, means over seeds: the prompts of each group, and the parts of the score as shares "
            "of the texts."
        )


def _component(key: str, value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if key in ("n", "code_tokens") else f"{100 * value:.0f} %"


def _bests(found: dict[str, Any]) -> tuple[str, str, str]:
    best, lowest = (
        ", ".join(UNKNOWN if step is None else f"{step:,}" for step in found[key].values())
        for key in ("best_steps", "lowest_loss_steps")
    )
    return best, lowest, interval(found["best_minus_lowest_loss"], digits=1)


def _pairs(comparisons: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for each in comparisons:
        for group, found in (each["quality"] or {}).items():
            yield (
                f"{each['second']} - {each['first']}",
                source_name(group) or "all",
                interval(found, digits=1),
                "yes" if found["surely"] else "not sure",
                UNKNOWN if found["effect_size"] is None else f"{found['effect_size']:+.2f}",
            )
