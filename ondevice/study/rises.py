"""Why a validation loss rose, version 2: what is read again too often, or what is no longer read and forgotten.

The training of a source ends at the last interval in which it was read more than in passing (`story.read_in`; version
1 counted a single window; each seed has its own). Its rise up to there, from its lowest mean by then, happened while it
was read: after more than one pass over it that is over-training, in the first pass it is not. Its rise from there to
the end is forgetting. A source of which nothing is ever read (measured only) cannot be either, and its rise says what
the training on others did to it. Each is a mean over seeds with its interval, adjusted for the number of sources. Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ondevice.evaluate.intervals import paired_difference
from ondevice.run.comparison import MIXED
from ondevice.study.story import Interval, Story, read_in

__all__ = ["RISES_VERSION", "rises_of"]

RISES_VERSION = 2


def rises_of(stories: Mapping[int, Story], grid: Sequence[int]) -> dict[str, Any]:
    """By source: ``while_read`` and ``after_read`` in nats (None: never read; read to the end), ``epochs`` at the end,
    ``read_until`` as a share of the training, and the ``cause``. ``grid`` are steps that all seeds have."""
    rows = {seed: _on(story.intervals, grid) for seed, story in stories.items()}
    named = [set(each.losses) - {MIXED} for row in rows.values() for each in row]
    sources = sorted(set.intersection(*named)) if named else []
    level = 1 - 0.05 / max(1, len(sources))
    return {source: _of_source(list(rows.values()), source, level) for source in sources}


def _on(intervals: Sequence[Interval], grid: Sequence[int]) -> list[Interval]:
    return [each for each in intervals if each.step in grid]


def _of_source(rows: Sequence[Sequence[Interval]], source: str, level: float) -> dict[str, Any]:
    reads = [_read_until(row, source) for row in rows]
    last = len(rows[0]) - 1
    if not any(source in row[-1].trained for row in rows) or not any(reads):
        best = _lowest(rows, source, [last] * len(rows))
        rise = paired_difference([_rise(row, source, best, last) for row in rows], level=level)
        return _told("unread" if rise["surely"] and rise["estimate"] > 0 else None, outside=rise, epochs=0.0)
    best = _lowest(rows, source, reads)
    reading = paired_difference(
        [_rise(row, source, min(best, read), read) for row, read in zip(rows, reads, strict=True)], level=level
    )
    after = None
    if any(read < last for read in reads):
        after = paired_difference(
            [_rise(row, source, read, last) for row, read in zip(rows, reads, strict=True)], level=level
        )
    epochs = statistics.fmean(row[-1].epochs.get(source, 0.0) for row in rows)
    until = statistics.fmean(_share(row, read) for row, read in zip(rows, reads, strict=True))
    return _told(_cause(reading, after, epochs), while_read=reading, after_read=after, epochs=epochs, read_until=until)


def _read_until(row: Sequence[Interval], source: str) -> int:
    """The place at which the last interval ends in which it was read; 0: none."""
    return max((place for place, was_read in enumerate(read_in(row, source), 1) if was_read), default=0)


def _lowest(rows: Sequence[Sequence[Interval]], source: str, until: Sequence[int]) -> int:
    """The place with the lowest mean, of those that every seed had reached while it read."""
    places = range(min(until) + 1)
    return min(places, key=lambda k: (statistics.fmean(row[k].losses[source] for row in rows), k))


def _rise(row: Sequence[Interval], source: str, start: int, end: int) -> float:
    return row[end].losses[source] - row[start].losses[source]


def _share(row: Sequence[Interval], place: int) -> float:
    total = row[-1].tokens - row[0].tokens
    return (row[place].tokens - row[0].tokens) / total if total else 0.0


def _cause(reading: Mapping[str, Any], after: Mapping[str, Any] | None, epochs: float) -> str | None:
    """Of the two rises the larger one that is sure; None: neither."""
    sure = {
        name: rise["estimate"]
        for name, rise in (("read", reading), ("after", after))
        if rise is not None and rise["surely"] and rise["estimate"] > 0
    }
    if not sure:
        return None
    if max(sure, key=lambda name: sure[name]) == "after":
        return "forgotten"
    return "over-trained" if epochs > 1.0 else "first pass"


def _told(cause: str | None, **found: Any) -> dict[str, Any]:
    empty = {"while_read": None, "after_read": None, "outside": None, "epochs": None, "read_until": None}
    return {"cause": cause, **empty, **found}
