"""When the work should be cut differently: the slow answers to heat, to other programs and to little memory.

Two cores at full duty often do more than four that rest, for the same heat. `bound` counts what speaks for a change,
`wanted` says which one is due, `changed` remembers that it was made. Pure; it counts only time that it was shown, so
that sleep and clocks set anew speak for nothing. The caller decides, between steps, and a new fit is sticky.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["Binding", "Wish", "bound", "changed", "wanted"]

LONG_S = 600.0  # heat or slow steps for so long are no passing thing
COOL_S = 1200.0
TIGHT_S = 300.0  # a piece that is too long for the room under the limit does not become shorter by itself
DWELL_S = 900.0  # between two changes that are not for want of memory
RUNG_S = 180.0  # from one shrinking to the next: memory that was given back must show
AGAIN_S = 2 * 3600.0  # threads given back are taken again within this: it was too early
MOST_DOUBLINGS = 5
MOST_SEEN_S = 60.0  # of the time between two orders; the rest was sleep
LOW_DUTY, FREE_DUTY, FULL_DUTY = 0.5, 0.8, 0.97
SLOW = 1.3  # times the step on the device at its best
FADES = 3.0  # a count runs down so much faster than up


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A change of the fit: ``fewer`` or ``more`` threads, so many; ``smaller`` for want of memory; ``shorter``: pieces
    cut into so many ``parts``; ``retune``: time the threads again. ``why`` follows "because"."""

    kind: str
    why: str
    threads: int | None = None
    parts: int | None = None


@dataclass(frozen=True, kw_only=True)
class Binding:
    """Seconds for which something spoke for another fit. ``threads`` and ``micro_batch`` as the caller told;
    ``full``: what the threads were before they were taken by ``heat`` or by ``others``, None where all are there."""

    threads: int | None = None
    micro_batch: int | None = None
    full: int | None = None
    taken_by: str = ""
    hot_s: float = 0.0
    cool_s: float = 0.0
    slow_s: float = 0.0
    tight_s: float = 0.0
    parts: int = 1  # into which a piece should be cut to suit the room, as of the last order
    dwell_s: float = DWELL_S  # since the last change
    rung_s: float = RUNG_S  # since the last one for want of memory
    returned_s: float | None = None  # since threads were given back
    too_early: int = 0  # times in a row that they had to be taken again
    in_vain: int = 0  # times in a row that timing them anew found nothing better
    seen_t: float | None = None


def bound(
    binding: Binding, duty: float, now: float, *, by_heat: bool | None, slow: float | None = None, parts: int = 1
) -> Binding:
    """The binding after an order with that duty at ``now`` (unix seconds). ``by_heat``: heat decides the duty; None:
    it is not known. ``slow``: times a step takes longer than at its best for another reason than heat; None: unknown.
    ``parts``: see `Binding`.
    """
    passed_s = 0.0 if binding.seen_t is None else min(MOST_SEEN_S, max(0.0, now - binding.seen_t))
    return replace(
        binding,
        hot_s=_hot(binding.hot_s, duty, passed_s, by_heat=by_heat),
        cool_s=_counted(binding.cool_s, passed_s, by_heat is False or (by_heat is True and duty >= FULL_DUTY)),
        slow_s=_counted(binding.slow_s, passed_s, slow is not None and slow >= SLOW),
        tight_s=_counted(binding.tight_s, passed_s, parts > 1),
        parts=parts if parts > 1 else binding.parts,
        in_vain=0 if slow is not None and slow < SLOW and not binding.slow_s else binding.in_vain,
        dwell_s=min(DWELL_S, binding.dwell_s + passed_s),
        rung_s=min(RUNG_S, binding.rung_s + passed_s),
        returned_s=None if binding.returned_s is None else binding.returned_s + passed_s,
        seen_t=now,
    )


def _hot(hot_s: float, duty: float, passed_s: float, *, by_heat: bool | None) -> float:
    if not by_heat or duty > FREE_DUTY:
        return 0.0
    return hot_s + passed_s if duty < LOW_DUTY else hot_s


def _counted(seconds: float, passed_s: float, speaks: bool) -> float:
    return seconds + passed_s if speaks else max(0.0, seconds - FADES * passed_s)


def wanted(binding: Binding, *, memory_low: bool = False) -> Wish | None:
    """The change that is due now; memory comes first, everything else keeps its distance from the last change."""
    if memory_low and binding.rung_s >= RUNG_S:
        return Wish(kind="smaller", why="memory runs out")
    if binding.dwell_s < DWELL_S:
        return None
    if binding.micro_batch is not None and binding.micro_batch > 1 and binding.tight_s >= TIGHT_S:
        why = f"a piece of work warms it too much for the room under the limit; {binding.parts} parts of it would not"
        return Wish(kind="shorter", parts=binding.parts, why=why)
    threads = binding.threads
    if threads is None:
        return None
    if threads > 1 and binding.hot_s >= LONG_S:
        minutes = f"{binding.hot_s / 60:.0f} minutes"
        why = f"heat let it work less than half of the time for {minutes}, and fewer cores do more for the same heat"
        return Wish(kind="fewer", threads=(threads + 1) // 2, why=why)
    if binding.slow_s >= LONG_S * 2 ** min(binding.in_vain, MOST_DOUBLINGS):
        why = f"steps have been slow for {binding.slow_s / 60:.0f} minutes, and not from heat"
        return Wish(kind="retune", threads=None, why=why)
    return _return(binding, threads)


def _return(binding: Binding, threads: int) -> Wish | None:
    """Threads that were taken come back, the later the more often that was too early."""
    if binding.full is None or binding.cool_s < COOL_S * 2 ** min(binding.too_early, MOST_DOUBLINGS):
        return None
    minutes = f"{binding.cool_s / 60:.0f} minutes"
    if binding.taken_by != "heat":
        return Wish(kind="retune", why=f"steps went undisturbed for {minutes}, so more cores may be free again")
    more = min(binding.full, 2 * threads)
    return Wish(kind="more", threads=more, why=f"it stayed cool for {minutes}")


def changed(binding: Binding, wish: Wish, *, threads: int) -> Binding:
    """The binding after a wish was carried out, or found to change nothing; ``threads`` are those of the fit now."""
    before = binding.threads if binding.threads is not None else threads
    fresh = replace(binding, threads=threads, hot_s=0.0, cool_s=0.0, slow_s=0.0, tight_s=0.0, dwell_s=0.0)
    if wish.kind == "shorter":
        return replace(fresh, parts=1)
    if wish.kind == "smaller":
        return replace(binding, rung_s=0.0, slow_s=0.0)
    if wish.kind == "more":
        return replace(fresh, full=_missing(binding, threads), returned_s=0.0)
    if wish.kind == "retune" and threads == before:
        return replace(fresh, in_vain=binding.in_vain + 1, too_early=binding.too_early + (binding.full is not None))
    if threads > before:
        return replace(fresh, full=_missing(binding, threads), returned_s=0.0, in_vain=0)
    early = binding.returned_s is not None and binding.returned_s < AGAIN_S
    return replace(
        fresh,
        full=binding.full or before,
        taken_by="heat" if wish.kind == "fewer" else "others",
        too_early=binding.too_early + 1 if early else 0,
        returned_s=None,
        in_vain=0,
    )


def _missing(binding: Binding, threads: int) -> int | None:
    """What the threads were before some were taken; None once all are back."""
    return binding.full if binding.full is not None and threads < binding.full else None
