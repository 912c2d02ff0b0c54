"""A piece of work so long that each one is steered by itself: the rest before it, and whether it should be cut.

What is asked of the estimates themselves is the business of `ondevice.governor.control`.
"""

from __future__ import annotations

from math import ceil

from ondevice.governor.control import LONG_S, Cycle
from ondevice.governor.node import Node

__all__ = ["is_long", "parts", "share", "waited"]

PATIENCE_S = 900.0
TIGHT, ROOMY = 0.5, 0.25  # of the room under a limit: what a piece may warm, and what one that is cut should
LEAST_PART_S = 2.0


def is_long(node: Node, limit_c: float, piece_s: float, much: float) -> bool:
    """Whether pieces are steered one by one: one warms the body by as ``much`` of the room under its limit. By their
    mean such short ones would be too warm: where they are rare, the lag smooths no swing."""
    return piece_s >= LONG_S or node.warming * piece_s > much * max(0.0, limit_c - node.idle_c)


def parts(node: Node, limit_c: float, piece_s: float) -> int:
    """Into how many a long piece should be cut, so that one warms the body by a small part of the room under its limit;
    1 where it is short enough, and where idling alone is too warm, so that nothing helps."""
    room_c, warms_c = limit_c - node.idle_c, node.warming * piece_s
    if room_c <= 0 or warms_c <= TIGHT * room_c:
        return 1
    return max(1, min(ceil(warms_c / (ROOMY * room_c)), ceil(piece_s / LEAST_PART_S)))


def waited(left_s: float | None, cycle: Cycle) -> float | None:
    """Where no rest would be long enough, that may change for a while before it is news."""
    return PATIENCE_S if left_s is None and cycle.rested_s is not None and cycle.rested_s < PATIENCE_S else left_s


def share(cycle: Cycle, left_s: float | None) -> float:
    """The duty of a long piece and the rest before it."""
    return 0.0 if left_s is None else cycle.piece_s / (cycle.piece_s + left_s + (cycle.rested_s or 0.0))
