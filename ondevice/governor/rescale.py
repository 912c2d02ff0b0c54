"""What was learned of heat, carried over to another number of threads: full work is then more watts, or fewer.

Only the unit of load changes, so that what work did until now foretells the same temperatures as before; how much
warmer full work makes the device is guessed by the number of cores, and trusted less.
"""

from __future__ import annotations

from dataclasses import replace

from ondevice.governor.heat import Heat, without_course
from ondevice.governor.node import Node, in_unit
from ondevice.governor.work import Work

__all__ = ["rescaled_heat", "rescaled_work"]

GUESS = 0.3  # of the warming: how far the number of cores may mislead


def rescaled_heat(heat: Heat, factor: float) -> Heat:
    """The same knowledge where full work is ``factor`` times the watts."""
    nodes = {name: tuple(_rescaled(node, factor) for node in bodies) for name, bodies in heat.nodes.items()}
    return replace(without_course(heat), nodes=nodes, peak=None)


def _rescaled(node: Node, factor: float) -> Node:
    found = in_unit(node, factor)
    return replace(found, bb=found.bb + (GUESS * found.warming * (factor != 1.0)) ** 2)  # as many cores mislead nobody


def rescaled_work(work: Work, factor: float) -> Work:
    """The same past, in loads of the new unit."""
    return replace(work, spans=tuple((end, busy, load / factor) for end, busy, load in work.spans), piece_s=0.0)
