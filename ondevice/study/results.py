"""What the finished seeds of a study say, version 2: trajectories with spread, repeated measures, paired differences.

Every statement about chance is an interval over seeds with its effect size (Hedges' g of paired differences, from three
seeds on; version 1 had Cohen's d); a p stands only beside the effect size of its analysis of variance. What cannot be
computed is said in a sentence. Pure: numbers of runs in, JSON values out.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ondevice.errors import DataError
from ondevice.evaluate.intervals import paired_difference
from ondevice.evaluate.trajectory import TRAJECTORY_VERSION, Settings, advise, diminishing, trajectory
from ondevice.run.comparison import MIXED
from ondevice.study.anova import ANOVA_VERSION, repeated_measures, spread
from ondevice.study.order_effects import ORDER_EFFECTS_VERSION, order_effects
from ondevice.study.rises import RISES_VERSION, rises_of
from ondevice.study.story import Story, loss_at, points_of

__all__ = ["RESULTS_VERSION", "results_of"]

RESULTS_VERSION = 2
Stories = Mapping[int, Story]  # by seed
ONE_SEED = "one seed: neither a spread nor an analysis of variance nor an interval of a difference can be computed"
NO_EFFECT_SIZES = (
    "Two seeds: intervals are wide, and no effect size can be estimated; give three or more, six are good."
)


def results_of(
    done: Mapping[str, Stories],
    *,
    reference: str | None,
    planned: int,
    tails: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Of the finished seeds of every arm. ``planned``: how many seeds there are to be. ``tails`` are pairs of a control
    and the tail that it is compared with, whatever the reference."""
    cannot = [*_missing(done, planned), *_vocabularies(done)]
    arms = {name: _arm(stories) for name, stories in done.items() if stories}
    compared, level = _comparisons(done, reference, tails, cannot)
    orders = order_effects(done, reference=reference)
    return {
        "v": RESULTS_VERSION,
        "versions": {
            "trajectory": TRAJECTORY_VERSION,
            "anova": ANOVA_VERSION,
            "order_effects": ORDER_EFFECTS_VERSION,
            "rises": RISES_VERSION,
        },
        "settings": Settings().to_json(),
        "arms": arms,
        "comparisons": compared,
        "level": level,
        "order_effects": orders,
        "cannot": cannot,
    }


def _missing(done: Mapping[str, Stories], planned: int) -> list[str]:
    if planned == 1:
        return [f"The study has {ONE_SEED}. Give three or more seeds; six are good."]
    said = [
        f"{name}: {len(stories)} of {planned} seeds are finished; figures are of these."
        for name, stories in done.items()
        if len(stories) < planned
    ]
    return said + [NO_EFFECT_SIZES] * any(len(stories) == 2 for stories in done.values())


def _vocabularies(done: Mapping[str, Stories]) -> list[str]:
    """What to say where losses of different arms are over different tokens."""
    kept = {
        name: {story.vocabulary.sha256 if story.vocabulary else "" for story in stories.values()}
        for name, stories in done.items()
        if stories
    }
    if len(set().union(*kept.values())) <= 1:
        return []
    whole = [name for name, each in kept.items() if each == {""}]
    trimmed = [name for name in kept if name not in whole]
    over = [f"{', '.join(whole)}: all"] * bool(whole) + [f"{', '.join(trimmed)}: those each keeps"]
    return [
        f"The arms' losses are over different tokens (model.vocabulary; {'; '.join(over)}), so their differences do "
        "not say which learned more; `ondevice eval` measures each over all."
    ]


def _arm(stories: Stories) -> dict[str, Any]:
    grid = _grid(stories)
    if not grid:
        return {"seeds": sorted(stories), "tokens": [], "skipped": "Its seeds were not evaluated at the same tokens."}
    sources = sorted({source for story in stories.values() for each in story.intervals for source in each.losses})
    curves = {source: _curve(stories, grid, source) for source in sources}
    tables = {source: [[_at(story, step, source) for step in grid] for story in stories.values()] for source in sources}
    return {
        "seeds": sorted(stories),
        "steps": grid,
        "tokens": [each.tokens for each in _first(stories).intervals if each.step in grid],
        "loss": curves,
        "perplexity": _perplexity(stories, grid),
        "anova": _anova(tables[MIXED]) if MIXED in tables else None,
        "shape": {str(seed): _shape(story) for seed, story in stories.items()},
        **_best_and_end(stories, grid),
        "rises": rises_of(stories, grid),
        "exposure": _exposure(stories),
        "cost": _cost(stories),
        "quality": _quality(stories),
    }


def _first(stories: Stories) -> Story:
    return next(iter(stories.values()))


def _grid(stories: Stories) -> list[int]:
    """Steps at which every seed was evaluated."""
    grids = [{each.step for each in story.intervals} for story in stories.values()]
    return sorted(set.intersection(*grids)) if grids else []


def _at(story: Story, step: int, source: str) -> float:
    return next(each.losses.get(source, math.nan) for each in story.intervals if each.step == step)


def _curve(stories: Stories, grid: Sequence[int], source: str) -> list[dict[str, Any] | None]:
    """Mean and spread between seeds at every interval; None where a seed has no such loss."""
    columns = [[_at(story, step, source) for story in stories.values()] for step in grid]
    return [spread(column).to_json() if all(map(math.isfinite, column)) else None for column in columns]


def _perplexity(stories: Stories, grid: Sequence[int]) -> list[float]:
    """The mean of the seeds' perplexities, not that of their mean loss."""
    return [
        statistics.fmean(math.exp(min(_at(story, step, MIXED), 700.0)) for story in stories.values()) for step in grid
    ]


def _anova(table_SK: list[list[float]]) -> dict[str, Any]:
    try:
        return repeated_measures(table_SK).to_json()
    except DataError as error:
        return {"skipped": str(error)}


def _shape(story: Story) -> dict[str, Any]:
    """One seed's curve: volatility, backslides, spikes, stable phase, and what it advises at its end."""
    found = trajectory(points_of(story.intervals, MIXED))
    return {**found.to_json(), "diminishing": asdict(diminishing(found)), "advice": asdict(advise(found.points))}


def _best_and_end(stories: Stories, grid: Sequence[int]) -> dict[str, Any]:
    """The interval at which the mean over seeds is lowest, against the last one, in pairs."""
    means = [statistics.fmean(_at(story, step, MIXED) for story in stories.values()) for step in grid]
    best = min(range(len(grid)), key=lambda place: (means[place], place))
    tokens = [each.tokens for each in _first(stories).intervals if each.step in (grid[best], grid[-1])]
    rises = [_at(story, grid[-1], MIXED) - _at(story, grid[best], MIXED) for story in stories.values()]
    return {
        "best": {"interval": best, "step": grid[best], "tokens": tokens[0], "loss": means[best]},
        "end": {"interval": len(grid) - 1, "step": grid[-1], "tokens": tokens[-1], "loss": means[-1]},
        "end_minus_best": paired_difference(rises),
        "tokens_after_best": tokens[-1] - tokens[0],
    }


def _exposure(stories: Stories) -> dict[str, Any]:
    """Tokens learned and epochs by source at the end, and how many of the tokens were different ones."""
    last = _first(stories).intervals[-1]
    unique = {name: tokens / max(1.0, last.epochs.get(name, 1.0)) for name, tokens in last.trained.items()}
    return {
        "tokens": last.trained,
        "epochs": last.epochs,
        "unique_tokens": round(sum(unique.values())) if unique else None,
    }


def _cost(stories: Stories) -> dict[str, Any]:
    """Means over seeds. ``after_best_s``: time spent on tokens after each seed's best."""
    worked = [story.worked_s for story in stories.values()]
    energy = [story.energy_wh for story in stories.values() if story.energy_wh is not None]
    shares = [_share_after_best(story) for story in stories.values()]
    return {
        "worked_s": statistics.fmean(worked),
        "after_best_s": statistics.fmean(s * share for s, share in zip(worked, shares, strict=True)),
        "energy_wh": statistics.fmean(energy) if energy else None,
    }


def _share_after_best(story: Story) -> float:
    points = points_of(story.intervals, MIXED)
    best = min(points, key=lambda point: (point.loss, point.step))
    learned = points[-1].tokens - points[0].tokens
    return (points[-1].tokens - best.tokens) / learned if learned else 0.0


def _quality(stories: Stories) -> dict[str, Any] | None:
    """Scores at the last judged step and at the best, with the step of the lowest loss beside; None: not judged."""
    judged = {seed: story.quality for seed, story in stories.items() if story.quality}
    if not judged:
        return None
    best = {
        seed: max(scores, key=lambda step: (scores[step].get(MIXED, 0.0), -step)) for seed, scores in judged.items()
    }
    last = {seed: max(scores) for seed, scores in judged.items()}
    names = sorted({name for scores in judged.values() for each in scores.values() for name in each})
    return {
        "end": {name: _spread_of([judged[seed][last[seed]].get(name) for seed in judged]) for name in names},
        "best": {name: _spread_of([judged[seed][best[seed]].get(name) for seed in judged]) for name in names},
        "best_steps": {str(seed): step for seed, step in best.items()},
        "lowest_loss_steps": {str(seed): _lowest(stories[seed], judged[seed]) for seed in judged},
        "diverged": {str(seed): each for seed in judged if (each := stories[seed].diverged) is not None},
        "components": _components([stories[seed].components for seed in judged]),
        "best_minus_lowest_loss": paired_difference(
            [
                judged[seed][best[seed]].get(MIXED, 0.0) - judged[seed][low].get(MIXED, 0.0)
                for seed in judged
                if (low := _lowest(stories[seed], judged[seed])) is not None
            ]
        ),
    }


def _components(seeds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Means over the seeds that have them, by group; ``n`` is the number of prompts a seed."""
    groups = sorted({group for each in seeds for group in each})
    found = {group: [each[group] for each in seeds if group in each] for group in groups}
    return {
        group: {name: statistics.fmean(each[name] for each in rows) for name in set.intersection(*map(set, rows))}
        for group, rows in found.items()
    }


def _lowest(story: Story, judged: Mapping[int, Any]) -> int | None:
    """Of the judged steps the one with the lowest loss, by the evaluation at or next before it."""
    points = points_of(story.intervals, MIXED)
    losses = {step: [point.loss for point in points if point.step <= step][-1:] for step in judged}
    known = {step: found[0] for step, found in losses.items() if found}
    return min(known, key=lambda step: (known[step], step)) if known else None


def _spread_of(values: Sequence[float | None]) -> dict[str, Any] | None:
    known = [value for value in values if value is not None]
    return spread(known).to_json() if known else None


def _comparisons(
    done: Mapping[str, Stories], reference: str | None, tails: Sequence[tuple[str, str]], cannot: list[str]
) -> tuple[list[dict[str, Any]], float]:
    """Of pairs of arms, in pairs of seeds, at equal tokens: the last that both reached, and each one's best by then.

    The level is adjusted for the number of pairs (Bonferroni)."""
    names = [name for name, stories in done.items() if stories]
    wanted = _pairs(names, reference, [pair for pair in tails if set(pair) <= set(names)])
    pairs = [pair for pair in wanted if not _only_forked(done[pair[0]], done[pair[1]])]
    level = 1 - 0.05 / max(1, len(pairs))
    found = []
    for first, second in pairs:
        seeds = sorted(set(done[first]) & set(done[second]))
        if not seeds:
            cannot.append(f"{first} and {second} share no finished seed and cannot be compared.")
            continue
        found.append(_comparison(first, second, done, seeds, level, cannot))
    return found, level


def _only_forked(first: Stories, second: Stories) -> bool:
    """Whether one begins where the other ends: at equal tokens they are one and the same."""
    stories = [_first(first).intervals, _first(second).intervals]
    start, end = max(each[0].tokens for each in stories), min(each[-1].tokens for each in stories)
    return 0 < start >= end


def _pairs(names: Sequence[str], reference: str | None, tails: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """First and second of every comparison, each pair once; a reference comes first."""
    yield from tails
    for first, second in itertools.combinations(names, 2):
        known = (first, second) in tails or (second, first) in tails
        if not known and (reference is None or reference in (first, second)):
            yield (second, first) if second == reference else (first, second)


def _comparison(
    first: str, second: str, done: Mapping[str, Stories], seeds: Sequence[int], level: float, cannot: list[str]
) -> dict[str, Any]:
    runs = [(done[first][seed], done[second][seed]) for seed in seeds]
    tokens = min(story.intervals[-1].tokens for pair in runs for story in pair)
    if len(seeds) == 1:
        cannot.append(f"{first} and {second} share one seed: whether they differ by more than chance cannot be said.")
    sources = set.intersection(*(set(each.intervals[-1].losses) for pair in runs for each in pair))
    at_end = {
        source: paired_difference([_loss(b, tokens, source) - _loss(a, tokens, source) for a, b in runs], level=level)
        for source in sorted(sources)
    }
    best = [_best_by(b, tokens) - _best_by(a, tokens) for a, b in runs]
    exact = all(any(each.tokens == tokens for each in story.intervals) for pair in runs for story in pair)
    return {
        "first": first,
        "second": second,
        "seeds": list(seeds),
        "tokens": tokens,
        "interpolated": not exact,
        "loss": at_end,
        "best_loss": paired_difference(best, level=level),
        "quality": _quality_difference(runs, level),
    }


def _loss(story: Story, tokens: int, source: str) -> float:
    found = loss_at(story.intervals, tokens, source)
    return math.nan if found is None else found


def _best_by(story: Story, tokens: int) -> float:
    return min(point.loss for point in points_of(story.intervals, MIXED) if point.tokens <= tokens)


def _quality_difference(runs: Sequence[tuple[Story, Story]], level: float) -> dict[str, Any] | None:
    """Of the last judged checkpoints, by group; None where one was not judged."""
    if not all(story.quality for pair in runs for story in pair):
        return None
    last = [(a.quality[max(a.quality)], b.quality[max(b.quality)]) for a, b in runs]
    names = set.intersection(*(set(each) for pair in last for each in pair))
    return {name: paired_difference([b[name] - a[name] for a, b in last], level=level) for name in sorted(names)}
