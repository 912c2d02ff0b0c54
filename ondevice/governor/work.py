"""When the device worked and when it rested, remembered as a short row of spans with a load from 0 to 1.

Short pieces of work run together into spans of a few seconds, so that memory and cost do not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

__all__ = ["KEPT_S", "PAUSE_S", "Work", "after_piece", "burst_s", "loads", "mean_load"]

SPAN_S = 2.0  # pieces shorter than this are told apart by nobody
KEPT_S = 240.0
PAUSE_S = 5.0  # of rest: no longer than that is no end of a bundle
MEAN_S = 180.0
PIECE_SMOOTHING = 0.2


@dataclass(frozen=True, kw_only=True)
class Work:
    """``spans`` are (end in unix seconds, load), each from the end of the one before; the first begins at ``begin_t``.

    ``piece_s`` is how long one piece, a micro-batch, usually takes.
    """

    begin_t: float | None = None
    spans: tuple[tuple[float, float], ...] = ()
    piece_s: float = 0.0

    @property
    def end_t(self) -> float | None:
        """When the last piece ended."""
        return self.spans[-1][0] if self.spans else self.begin_t


def burst_s(work: Work) -> float:
    """How long it worked since the last rest that was no mere pause."""
    total_s, end_t = 0.0, work.end_t or 0.0
    for index in range(len(work.spans) - 1, -1, -1):
        end_t, load = work.spans[index]
        begin_t = work.spans[index - 1][0] if index else (work.begin_t or end_t)
        if load < 0.5 and end_t - begin_t > PAUSE_S:
            break
        total_s += load * (end_t - begin_t)
    return total_s


def after_piece(work: Work, piece_s: float, now: float) -> Work:
    """A piece of ``piece_s`` seconds ended at ``now``; since the last one there was rest."""
    piece_s = max(0.0, piece_s)
    usual = work.piece_s + PIECE_SMOOTHING * (piece_s - work.piece_s) if work.piece_s else piece_s
    last = work.end_t
    if last is None or now < last or now - last > KEPT_S:
        return Work(begin_t=now - piece_s, spans=((now, 1.0),), piece_s=usual)
    start = max(last, now - piece_s)
    before = work.spans[-2][0] if len(work.spans) > 1 else work.begin_t
    if before is not None and work.spans and now - before < SPAN_S:
        busy = work.spans[-1][1] * (last - before) + (now - start)
        spans = (*work.spans[:-1], (now, busy / (now - before) if now > before else 1.0))
    else:
        spans = (*work.spans, *(((start, 0.0),) if start > last else ()), *(((now, 1.0),) if now > start else ()))
    return _trimmed(replace(work, spans=spans, piece_s=usual), now)


def _trimmed(work: Work, now: float) -> Work:
    if work.begin_t is None or now - work.begin_t < 2 * KEPT_S:
        return work
    gone = sum(end < now - KEPT_S for end, _ in work.spans)
    return replace(work, begin_t=work.spans[gone - 1][0], spans=work.spans[gone:])


def loads(work: Work, start: float, until: float, assumed: float) -> Iterator[tuple[float, float]]:
    """(seconds, load) that fill the time from ``start`` to ``until``; what was not seen has the ``assumed`` load."""
    t = start
    if work.begin_t is not None and t < work.begin_t:
        yield min(work.begin_t, until) - t, assumed
        t = work.begin_t
    for end, load in work.spans:
        if t >= until:
            return
        if end > t:
            stop = min(end, until)
            yield stop - t, load
            t = stop
    if until > t:
        yield until - t, assumed


def mean_load(work: Work, now: float) -> float:
    """Of the last minutes, as far as they are remembered; 0 where nothing is."""
    if work.begin_t is None or now <= work.begin_t:
        return 0.0
    start = max(work.begin_t, now - MEAN_S)
    return sum(seconds * load for seconds, load in loads(work, start, now, 0.0)) / (now - start)
