"""What the governor remembers from one launch to the next, aged by the time between them.

A phone that was left a minute ago is as warm as its estimate says; one that rested for an hour is begun anew,
but for how much work warms it. Pure: where the memory is kept, and how much time truly passed, is the trainer's
business.
"""

from __future__ import annotations

from dataclasses import replace

from ondevice.governor.debt import Debt
from ondevice.governor.heat import COLD_START_S, Heat
from ondevice.governor.history import History
from ondevice.governor.node import Node
from ondevice.governor.order import Order
from ondevice.governor.pace import Pace
from ondevice.governor.rescale import rescaled_heat, rescaled_work
from ondevice.governor.signals import SIGNALS
from ondevice.governor.work import Work, of_late

__all__ = ["is_whole", "owed", "recalled"]

LONGEST_BUNDLE_S = 60.0
UNSEEN_S = 30.0  # it may have worked for so long after it was last heard
FOREVER_S = 3600.0  # stands for a time that nobody knows


def is_whole(history: History) -> bool:
    """Whether its estimates are of the signals and bodies that this program knows, and there is one at all."""
    bodies = {signal.name: len(signal.bodies) for signal in SIGNALS}
    nodes = history.heat.nodes
    return bool(nodes) and all(bodies.get(name) == len(found) for name, found in nodes.items())


def recalled(
    fresh: History, before: History, *, now: float, then: float, passed_s: float | None, worked_s: float = 0.0
) -> History:
    """The history of a launch that begins at ``now`` as ``fresh``, with what another knew at ``then`` (unix seconds).

    ``passed_s``: truly passed between the two, whatever the clock on the wall did; None: nobody knows. ``worked_s``: of
    these the other lived on, at its last duty, without being remembered.
    """
    known_s = FOREVER_S if passed_s is None else max(0.0, passed_s)
    shift_s = now - known_s - then
    heat = _shifted_heat(before.heat, shift_s)
    if passed_s is None and heat.stopped_t is not None:
        heat = replace(heat, stopped_t=now)
    found = replace(fresh, heat=rescaled_heat(heat, _factor(before, fresh)))
    if _fit(before) == _fit(fresh):
        binding = replace(before.binding, full=fresh.binding.full, seen_t=None)
        found = replace(found, pace=Pace(cold_s=before.pace.cold_s), binding=binding)
    return found if known_s > COLD_START_S else _at_once(found, before, shift_s, worked_s, now)


def owed(history: History, now: float) -> Debt:
    """The rest that the launch before still owed for its last work, had it not ended."""
    worked_s, rested_s = of_late(history.work, now)
    under_way_s = history.work.piece_s
    rested_s = max(0.0, rested_s - UNSEEN_S)
    return Debt(work_s=worked_s + under_way_s, rested_s=rested_s) if worked_s > 0.0 else Debt()


def _at_once(found: History, before: History, shift_s: float, worked_s: float, now: float) -> History:
    """With what counts for minutes only: the work of late and the last order."""
    work, alike = _shifted_work(before.work, shift_s), _fit(before) == _fit(found)
    if worked_s > 0.0 and before.order is not None and before.decided_t is not None:
        known_t = before.decided_t + shift_s
        work = _with_unseen(work, before.order, known_t, min(now, known_t + worked_s))
    work = rescaled_work(work, _factor(before, found))
    if alike:
        found = replace(found, pace=replace(before.pace, looked_t=None))
    piece_s = before.work.piece_s if alike else found.work.piece_s
    return replace(found, work=replace(work, piece_s=piece_s), order=before.order, since_t=now)


def _with_unseen(work: Work, order: Order, since_t: float, until_t: float) -> Work:
    """With work between two times of which only the order is known; nobody knows whether it ended in a bundle."""
    busy, power = order.duty, work.power_share
    bundle_s = min(LONGEST_BUNDLE_S, order.rest_s * busy / max(1.0 - busy, 0.01))
    last_t = until_t - max(bundle_s, work.piece_s)
    spans = ((since_t, 0.0, 0.0), (last_t, busy, busy * power), (until_t, 1.0, power))
    return replace(work, spans=(*work.spans, *(span for span in spans if span[0] > (work.end_t or since_t))))


def _fit(history: History) -> tuple[int | None, int | None]:
    return history.binding.threads, history.binding.micro_batch


def _factor(before: History, fresh: History) -> float:
    """Of the watts of full work, from the threads of then to those of now."""
    old, new = before.binding.threads, fresh.binding.threads
    return new / old if old and new else 1.0


def _shifted_heat(heat: Heat, shift_s: float) -> Heat:
    """What was felt within a rest or a peak is over, whenever that was."""
    return replace(
        heat,
        nodes={name: tuple(_shifted(node, shift_s) for node in bodies) for name, bodies in heat.nodes.items()},
        peak=None,
        soundings={},
        offset=None if heat.offset is None else replace(heat.offset, t=heat.offset.t + shift_s),
        stopped_t=None if heat.stopped_t is None else heat.stopped_t + shift_s,
    )


def _shifted(node: Node, shift_s: float) -> Node:
    return replace(node, t=node.t + shift_s, seen_t=node.seen_t + shift_s)


def _shifted_work(work: Work, shift_s: float) -> Work:
    begin_t = None if work.begin_t is None else work.begin_t + shift_s
    return replace(work, begin_t=begin_t, spans=tuple((end + shift_s, busy, load) for end, busy, load in work.spans))
