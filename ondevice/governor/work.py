"""When the device worked and at how much of its power, remembered as a short row of spans.

Short pieces of work run together into spans of a few seconds, so that memory and cost do not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import exp, inf

__all__ = [
    "KEPT_S",
    "PAUSE_S",
    "Work",
    "after_piece",
    "burst_s",
    "clock_is_seen",
    "clocked",
    "loads",
    "mean_busy",
    "of_late",
]

SPAN_S = 2.0  # pieces shorter than this are told apart by nobody
KEPT_S = 240.0
PAUSE_S = 5.0  # of rest: no longer than that is no end of a bundle
MEAN_S = 180.0
OF_LATE_S = 60.0
PIECE_SMOOTHING = 0.2
POWER_EXPONENT = 2.0  # of the clock: voltage falls with it; 1.5 to 2.5 do as well (tools/LOG.md, 2026-11-22)
LEAST_POWER = 0.1
POWER_S = 20.0  # over which it is evened out
AFTER_S = 0.2  # after a piece: who just worked is still busy with the answer, at the same clock
TOLD_S = 900.0  # how long what was seen of the clock is believed


@dataclass(frozen=True, kw_only=True)
class Work:
    """``spans`` are (end in unix seconds, busy, load), each from the end of the one before; the first begins at
    ``begin_t``. Busy is the share of the time that was worked, load that of full power: slowed cores warm less.

    ``piece_s`` is how long one piece, a micro-batch, usually takes.
    """

    begin_t: float | None = None
    spans: tuple[tuple[float, float, float], ...] = ()
    piece_s: float = 0.0
    last_s: float = 0.0  # how long the last piece took
    power_share: float = 1.0  # of full power, of late and while it worked
    clock_t: float | None = None  # when the clock of the processor was last seen at work

    @property
    def end_t(self) -> float | None:
        """When the last piece ended."""
        return self.spans[-1][0] if self.spans else self.begin_t


def burst_s(work: Work) -> float:
    """How long it worked since the last rest that was no mere pause."""
    return _since_rest(work)[0]


def of_late(work: Work, now: float) -> tuple[float, float]:
    """Seconds that it worked and rested in the last minute, both since the last rest that was no mere pause."""
    if work.end_t is None:
        return 0.0, 0.0
    worked_s, rested_s = _since_rest(work, now - OF_LATE_S)
    return worked_s, rested_s + max(0.0, now - work.end_t)


def _since_rest(work: Work, since: float = -inf) -> tuple[float, float]:
    worked_s = rested_s = 0.0
    for index in range(len(work.spans) - 1, -1, -1):
        end_t, busy, _ = work.spans[index]
        begin_t = work.spans[index - 1][0] if index else (work.begin_t or end_t)
        if end_t <= since or (1 - busy) * (end_t - begin_t) > PAUSE_S:
            break
        begin_t = max(begin_t, since)
        worked_s, rested_s = worked_s + busy * (end_t - begin_t), rested_s + (1 - busy) * (end_t - begin_t)
    return worked_s, rested_s


def after_piece(work: Work, piece_s: float, now: float) -> Work:
    """A piece of ``piece_s`` seconds ended at ``now``; since the last one there was rest."""
    piece_s, power = max(0.0, piece_s), work.power_share
    usual = work.piece_s + PIECE_SMOOTHING * (piece_s - work.piece_s) if work.piece_s else piece_s
    last = work.end_t
    if last is None or now < last or now - last > KEPT_S:
        return replace(work, begin_t=now - piece_s, spans=((now, 1.0, power),), piece_s=usual, last_s=piece_s)
    start = max(last, now - piece_s)
    before = work.spans[-2][0] if len(work.spans) > 1 else work.begin_t
    if before is not None and work.spans and before < now < before + SPAN_S:
        _, busy, load = work.spans[-1]
        kept, more = (last - before) / (now - before), (now - start) / (now - before)
        spans = (*work.spans[:-1], (now, kept * busy + more, kept * load + more * power))
    else:
        rest = ((start, 0.0, 0.0),) if start > last else ()
        spans = (*work.spans, *rest, *(((now, 1.0, power),) if now > start else ()))
    return _trimmed(replace(work, spans=spans, piece_s=usual, last_s=now - start), now)


def clocked(work: Work, freq_share: float | None, t: float) -> Work:
    """With the clock of the processor at ``t`` unix seconds, as a share of its highest; None where it cannot be read.

    A core that rests is slow without being slowed, so only what was seen during the last piece counts.
    """
    end_t = work.end_t
    if freq_share is None and work.clock_t is not None and not clock_is_seen(work, t):
        return replace(work, power_share=1.0, clock_t=None)
    if freq_share is None or end_t is None or not end_t - work.last_s <= t <= end_t + AFTER_S or t == work.clock_t:
        return work
    power = max(LEAST_POWER, freq_share**POWER_EXPONENT)
    fresh = 1.0 if work.clock_t is None else 1.0 - exp(-max(work.last_s, 1.0) / POWER_S)
    return replace(work, power_share=work.power_share + fresh * (power - work.power_share), clock_t=t)


def clock_is_seen(work: Work, now: float) -> bool:
    """Whether the clock of the processor was seen at work of late, and so how much power that took."""
    return work.clock_t is not None and 0.0 <= now - work.clock_t < TOLD_S


def _trimmed(work: Work, now: float) -> Work:
    if work.begin_t is None or now - work.begin_t < 2 * KEPT_S:
        return work
    gone = sum(end < now - KEPT_S for end, _, _ in work.spans)
    return replace(work, begin_t=work.spans[gone - 1][0], spans=work.spans[gone:])


def loads(work: Work, start: float, until: float, assumed: float) -> Iterator[tuple[float, float]]:
    """(seconds, load) that fill the time from ``start`` to ``until``; what was not seen was ``assumed`` busy."""
    for seconds, _, load in _stretches(work, start, until, assumed):
        yield seconds, load


def _stretches(work: Work, start: float, until: float, assumed: float) -> Iterator[tuple[float, float, float]]:
    """(seconds, busy, load)."""
    unseen, t = (assumed, assumed * work.power_share), start
    if work.begin_t is not None and t < work.begin_t:
        yield min(work.begin_t, until) - t, *unseen
        t = work.begin_t
    for end, busy, load in work.spans:
        if t >= until:
            return
        if end > t:
            stop = min(end, until)
            yield stop - t, busy, load
            t = stop
    if until > t:
        yield until - t, *unseen


def mean_busy(work: Work, now: float) -> float:
    """Of the last minutes, as far as they are remembered; 0 where nothing is."""
    if work.begin_t is None or now <= work.begin_t:
        return 0.0
    start = max(work.begin_t, now - MEAN_S)
    return sum(seconds * busy for seconds, busy, _ in _stretches(work, start, now, 0.0)) / (now - start)
