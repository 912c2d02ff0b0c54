"""What the order of the text did, version 3: the early-against-late gap and recency, per source, over seeds.

A source's centre is where in the training it was read on the mean (0 the beginning, 1 the end). The early half of the
sources has the smaller centres; where all lie within a tenth of the training, the order tells no early from late.
gap = mean loss of the late half - mean loss of the early half; since sources differ in how hard they are, the same gap
of the reference arm (same seed, same tokens, same halves) is subtracted where there is one that was measured over all
of these tokens: above 0 the late ones are behind, below 0 the early ones. A source that is measured and never read has
no place in the order (version 1 counted it as late). Recency of a source: how much of the training went by since it was
last read (more than in passing: `story.read_in`; version 2 counted a single window), and how much its loss has risen
from its best. Pure.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ondevice.evaluate.intervals import paired_difference
from ondevice.run.comparison import MIXED
from ondevice.study.story import Interval, Story, loss_at, read_in

__all__ = ["ORDER_EFFECTS_VERSION", "centres", "halves", "order_effects", "recency"]

ORDER_EFFECTS_VERSION = 3
_APART = 0.1  # of the training


def order_effects(done: Mapping[str, Mapping[int, Story]], *, reference: str | None) -> dict[str, Any]:
    """Of every arm with several sources, by name."""
    found = {}
    for name, stories in done.items():
        told = {seed: story for seed, story in stories.items() if len(_sources(story)) > 1}
        if told:
            base = _covering(done.get(reference, {}), told) if reference not in (None, name) else {}
            found[name] = _of_arm(told, base)
    return found


def _covering(base: Mapping[int, Story], stories: Mapping[int, Story]) -> dict[int, Story]:
    """The seeds of a reference that was measured from where the arm began to where it ended."""
    return {
        seed: story
        for seed, story in base.items()
        if seed in stories
        and story.intervals
        and story.intervals[0].tokens <= stories[seed].intervals[0].tokens
        and story.intervals[-1].tokens >= stories[seed].intervals[-1].tokens
    }


def _sources(story: Story) -> list[str]:
    """With a loss, and read at least once since the arm began."""
    if not story.intervals:
        return []
    first, last = story.intervals[0], story.intervals[-1]
    return sorted(
        name for name in last.losses if name != MIXED and last.trained.get(name, 0.0) > first.trained.get(name, 0.0)
    )


def _of_arm(stories: Mapping[int, Story], base: Mapping[int, Story]) -> dict[str, Any]:
    per_seed = {seed: centres(story.intervals) for seed, story in stories.items()}
    names = sorted(set.intersection(*(set(_sources(story)) for story in stories.values())))
    mean = {name: statistics.fmean(each[name] for each in per_seed.values()) for name in names}
    sides = halves(mean)
    return {
        "centres": mean,
        "early": sides[0] if sides else None,
        "late": sides[1] if sides else None,
        "against_reference": bool(set(stories) & set(base)),
        "gap": _gaps(stories, base, sides) if sides else None,
        "recency": _recencies(stories, names),
    }


def centres(intervals: Sequence[Interval]) -> dict[str, float]:
    """Where each source was read, from 0 to 1, to within half an interval; 1 for one that is still to come."""
    total = intervals[-1].tokens - intervals[0].tokens
    weights: dict[str, float] = {}
    moments: dict[str, float] = {}
    for before, after in itertools.pairwise(intervals):
        middle = ((before.tokens + after.tokens) / 2 - intervals[0].tokens) / total if total else 0.0
        for name, tokens in after.trained.items():
            read = tokens - before.trained.get(name, 0.0)
            weights[name] = weights.get(name, 0.0) + read
            moments[name] = moments.get(name, 0.0) + read * middle
    return {name: moments[name] / weight if weight else 1.0 for name, weight in weights.items()}


def halves(centre: Mapping[str, float]) -> tuple[list[str], list[str]] | None:
    """The early and the late half; of an odd number the middle one is in neither. None: they are not apart."""
    names = sorted(centre, key=lambda name: (centre[name], name))
    if len(names) < 2 or centre[names[-1]] - centre[names[0]] < _APART:
        return None
    half = len(names) // 2
    return names[:half], names[-half:]


def _gaps(
    stories: Mapping[int, Story], base: Mapping[int, Story], sides: tuple[list[str], list[str]]
) -> dict[str, Any]:
    """At every interval and at the end, with the spread over seeds; quality likewise at the last judged step."""
    seeds = [seed for seed in stories if seed in base] or list(stories)
    rows = [_seed_gaps(stories[seed], base.get(seed), sides) for seed in seeds]
    length = min(len(row) for row in rows)
    curve = [statistics.fmean(row[place] for row in rows) for place in range(length)]
    end = [row[length - 1] for row in rows]
    quality = [gap for seed in seeds if (gap := _quality_gap(stories[seed], base.get(seed), sides)) is not None]
    return {
        "tokens": [each.tokens for each in stories[seeds[0]].intervals[:length]],
        "curve": curve,
        "end": paired_difference(end),
        "mean_over_training": paired_difference([statistics.fmean(row[1:]) for row in rows if len(row) > 1]),
        "quality": paired_difference(quality) if quality else None,
    }


def _seed_gaps(story: Story, base: Story | None, sides: tuple[list[str], list[str]]) -> list[float]:
    """At every interval; the reference's at the same tokens, on a line between its evaluations."""
    gaps = []
    for each in story.intervals:
        gap = _gap(each.losses, sides)
        if base is not None:
            theirs = {name: loss_at(base.intervals, each.tokens, name) for side in sides for name in side}
            gap -= _gap({name: math.nan if loss is None else loss for name, loss in theirs.items()}, sides)
        gaps.append(gap)
    return gaps


def _gap(values: Mapping[str, float], sides: tuple[list[str], list[str]]) -> float:
    early, late = (statistics.fmean(values[name] for name in side) for side in sides)
    return late - early


def _quality_gap(story: Story, base: Story | None, sides: tuple[list[str], list[str]]) -> float | None:
    """Of scores at the last judged step, higher is better; None where a source was not judged."""
    last = [each.quality[max(each.quality)] if each.quality else {} for each in (story, base) if each is not None]
    if not all(name in scores for scores in last for side in sides for name in side):
        return None
    return _gap(last[0], sides) - (_gap(last[1], sides) if len(last) > 1 else 0.0)


def recency(intervals: Sequence[Interval], source: str) -> tuple[float, float]:
    """Share of the training since the source was last read, and nats by which its loss is above its best."""
    total = intervals[-1].tokens - intervals[0].tokens
    ends = [each.tokens for each, was_read in zip(intervals[1:], read_in(intervals, source), strict=True) if was_read]
    last = ends[-1] if ends else intervals[0].tokens
    losses = [each.losses[source] for each in intervals if source in each.losses]
    return ((intervals[-1].tokens - last) / total if total else 0.0), losses[-1] - min(losses)


def _recencies(stories: Mapping[int, Story], names: Sequence[str]) -> dict[str, Any]:
    """Per source means over seeds; and the slope of forgetting over staleness across sources, over seeds."""
    found = {seed: {name: recency(story.intervals, name) for name in names} for seed, story in stories.items()}
    sources = {
        name: {
            "since_read": statistics.fmean(each[name][0] for each in found.values()),
            "forgotten": paired_difference([each[name][1] for each in found.values()]),
        }
        for name in names
    }
    slopes = [slope for each in found.values() if (slope := _slope(list(each.values()))) is not None]
    return {"sources": sources, "nats_forgotten_over_whole_training": paired_difference(slopes) if slopes else None}


def _slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Nats forgotten if the whole training went by; None where every source was read equally late."""
    since = np.array([point[0] for point in points])
    if float(np.ptp(since)) < _APART:
        return None
    return float(np.polyfit(since, [point[1] for point in points], 1)[0])
