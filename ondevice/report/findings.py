"""What a study found, in plain sentences with intervals, as its report begins: over-training, differences between arms,
early against late sources, and whether the lowest loss wrote the best text.

Reads the results of a record and computes nothing but counts; what may be chance is said to.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ondevice.report.figures import amount, between, listed, source_name
from ondevice.report.rises import advice, behind_mixture, surely_rose

__all__ = ["findings"]

_MOST_PAIRS = 6
_CHANCE = "of one seed this may be chance"
_UNITS = (
    "Losses are in nats a token, lower is better: 0.1 less is about a tenth less perplexity. Sure means that the "
    "interval over the seeds leaves out 0."
)


def findings(results: dict[str, Any], *, reference: str | None) -> list[str]:
    """Of a study's results, with the name of its reference arm; empty before a run has ended."""
    arms = {name: arm for name, arm in results["arms"].items() if "best" in arm}
    if not arms:
        return []
    orders = results["order_effects"]
    return [
        *(f"{name}: {advice(arm)}" for name, arm in arms.items() if surely_rose(arm)),
        *_orders(orders, arms, reference),
        *_differences(results["comparisons"]),
        *_courses(arms),
        *_quality(arms, results["comparisons"]),
        _UNITS,
    ]


def _courses(arms: dict[str, Any]) -> Iterator[str]:
    """Of the arms whose mixed loss did not surely rise."""
    others = {name: arm for name, arm in arms.items() if not surely_rose(arm)}
    for name, arm in others.items():
        if told := behind_mixture(arm):
            yield f"{name}: {told}"
    falling = [name for name, arm in others.items() if not arm["tokens_after_best"]]
    if falling:
        yield f"Still lowest at the end, so that more training may help: {listed(falling)}."
    if unsure := [name for name in others if name not in falling]:
        rises = (f"{name} by {amount(others[name]['end_minus_best'], 'nats')}" for name in unsure)
        yield f"Lowest before the end, but whether it rose is not sure: {listed(rises)}."


def _differences(comparisons: list[dict[str, Any]]) -> Iterator[str]:
    """Of pairs of arms by their mixed losses; of very many pairs only how many differ."""
    told = [each for each in comparisons if "" in each["loss"]]
    if len(told) <= _MOST_PAIRS:
        yield from map(_difference, told)
        return
    sure = sum(each["loss"][""]["surely"] for each in told)
    widest = max(told, key=lambda each: abs(each["loss"][""]["estimate"]) if each["loss"][""]["surely"] else -1.0)
    yield f"Of {len(told)} pairs of arms {sure} surely differ." + (f" Most: {_difference(widest)}" if sure else "")


def _difference(each: dict[str, Any]) -> str:
    found, first, second = each["loss"][""], each["first"], each["second"]
    at, estimate = f"{each['tokens'] / 1e6:.3g} M tokens", found["estimate"]
    side = "lower" if estimate < 0 else "higher"
    if found["low"] is None:
        return f"{second} is {abs(estimate):.3f} nats {side} than {first} at {at}; {_CHANCE}."
    if not found["surely"]:
        return f"{second} and {first} do not surely differ at {at}: {amount(found, 'nats')}."
    change = math.expm1(min(estimate, 50.0))
    better = f"surely {'better' if estimate < 0 else 'worse'}, perplexity {100 * change:+.0f} %"
    return f"{second} is {abs(estimate):.3f} nats {side} than {first} at {at} ({between(found)}): {better}."


def _orders(effects: dict[str, Any], arms: dict[str, Any], reference: str | None) -> Iterator[str]:
    """Of the arms that read some sources earlier than others, against the reference."""
    for name, found in effects.items():
        if name not in arms or not found["gap"] or not found["against_reference"]:
            continue
        early, late = (listed(map(source_name, found[side])) for side in ("early", "late"))
        end = found["gap"]["end"]
        if end["low"] is None:
            yield f"{name}: late ({late}) - early ({early}) against {reference} {end['estimate']:+.3f} nats; {_CHANCE}."
            continue
        if not end["surely"]:
            told = f"read early ({early}) or late ({late}) makes no sure difference against {reference}"
            yield f"{name}: {told}, {amount(end, 'nats')}."
            continue
        winner, other = ("late", "early") if end["estimate"] < 0 else ("early", "late")
        names = {"early": early, "late": late}
        yield (
            f"{name}: sources read {winner} ({names[winner]}) end better against those read {other} ({names[other]}) "
            f"than in {reference}, by {abs(end['estimate']):.3f} nats ({between(end)})."
        )


def _quality(arms: dict[str, Any], comparisons: list[dict[str, Any]]) -> Iterator[str]:
    judged = {name: arm["quality"] for name, arm in arms.items() if arm["quality"]}
    if not judged:
        return
    yield from _parted(judged)
    scores = [(each, each["quality"][""]) for each in comparisons if each["quality"] and "" in each["quality"]]
    for each, found in scores:
        if found["surely"]:
            better = "better" if found["estimate"] > 0 else "worse"
            yield (
                f"At the end {each['second']} writes surely {better} than {each['first']}: "
                f"{amount(found, 'points of 100', digits=1)}."
            )
    if any(found["low"] is not None for _, found in scores) and not any(found["surely"] for _, found in scores):
        yield "No arm surely writes better than another at the end, by the score of 100 points."


def _parted(judged: dict[str, Any]) -> Iterator[str]:
    """Whether the checkpoint with the lowest loss was the one that wrote the best text."""
    pairs = [
        (step, found["lowest_loss_steps"][seed])
        for found in judged.values()
        for seed, step in found["best_steps"].items()
        if found["lowest_loss_steps"][seed] is not None
    ]
    same = sum(best == lowest for best, lowest in pairs)
    earlier, later = (sum((best < lowest) == way and best != lowest for best, lowest in pairs) for way in (True, False))
    yield (
        f"Lowest loss and best text are the same checkpoint in {same} of {len(pairs)} runs; the best text came before "
        f"in {earlier} and after in {later}."
    )
    diverged = [
        _divergence(f"{name}-{seed}", each)
        for name, found in judged.items()
        for seed, each in found.get("diverged", {}).items()
    ]
    if diverged:
        yield f"Less loss with surely worse text: {listed(diverged)}."
    elif any("diverged" in found for found in judged.values()):
        yield "In no run did a loss lower by 5 % surely come with a score lower by 5 %."


def _divergence(run: str, each: dict[str, Any]) -> str:
    changes = f"loss {100 * each['loss_change']:+.0f} %, score {100 * each['quality_change']:+.0f} %"
    return f"{run} (step {each['worse']:,} against {each['best']:,}: {changes})"
