"""Records out of blocks of telemetry lines: step records, which are nearly all, by the hundred; others one by one.

A step line exactly as `ondevice.run.telemetry` writes it is taken apart by one pattern, five times faster than as JSON;
any other line goes the long way. Knows no state.
"""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tui.tail import Block

__all__ = ["Lines", "Steps", "cut"]

_NUMBER = rb"(-?[0-9][-+.0-9e]*+)"
_SHORT = rb"(-?[0-9]{1,9}+\.[0-9]{1,9}+)[0-9]*+"  # ten digits are enough to draw, and are read in half the time
_COUNT = rb"([0-9]{1,15}+)"
_LINE = re.compile(
    rb'\{"v":1,"t":' + _NUMBER + rb',"kind":"step","step":' + _COUNT + rb'(?:,"sim_t":' + _NUMBER + rb")?"
    + rb',"tokens":' + _COUNT + rb',"loss":' + _SHORT + rb',"lr":' + _NUMBER + rb',"grad_norm":' + _SHORT
    + rb',"step_s":' + _SHORT + rb',"tok_s":' + _NUMBER + rb"(?:,[^{}\\\n]*+)?+\}\n|([^\n]*+)\n"
)  # fmt: skip
_READING = b'"kind":"reading"'
_STRIDE = 8  # of the times, token counts and learning rates that are kept: they change evenly
_MUCH_S = 3600.0  # of work in one block: such steps are rare enough to go the long way


@dataclass(frozen=True)
class Steps:
    """Step records in a row, steps rising by one, all numbers finite.

    ``ts`` (of a simulated device its own), ``tokens`` and ``lrs`` are of the steps in ``marked`` only, the last among
    them. ``whole`` stands for all
    records as one: the last one's values, the working time and the rate of all.
    """

    steps: array[float]
    losses: array[float]
    grad_norms: array[float]
    steps_s: array[float]
    marked: array[float]
    ts: array[float]
    tokens: array[float]
    lrs: array[float]
    tokens_a_step: float
    whole: dict[str, Any]


@dataclass(frozen=True)
class Lines:
    """Lines that are to be parsed one by one, the first of them number ``number``."""

    number: int
    lines: list[bytes]


def cut(block: Block) -> Iterator[Steps | Lines]:
    """A block as runs of step records and of other lines, in order; only readings are told before steps around them."""
    if block.data is None:
        return
    rows = _LINE.findall(block.data)
    others = [place for place, row in enumerate(rows) if not row[0]]
    start = 0
    for place in (*(place for place in others if _READING not in rows[place][-1]), len(rows)):
        between = others[bisect_left(others, start) : bisect_left(others, place)]
        yield from (Lines(block.number + other, [rows[other][-1]]) for other in between)
        if place - start > len(between):
            found = _steps(rows[start:place] if not between else [row for row in rows[start:place] if row[0]])
            yield found or _again(block, start, place)
        if place < len(rows):
            yield Lines(block.number + place, [rows[place][-1]])
        start = place + 1


def _again(block: Block, start: int, end: int) -> Lines:
    """Lines that the pattern took for step records and that are odd after all."""
    assert block.data is not None
    lines = block.data.split(b"\n")[start:end]
    return Lines(block.number + start, [b"" if _READING in line else line for line in lines])


def _steps(rows: Sequence[tuple[bytes, ...]]) -> Steps | None:
    """None where a number is odd or steps do not rise by one."""
    ts, steps, sim_ts, tokens, losses, lrs, grad_norms, steps_s, rates, _ = zip(*rows, strict=True)
    first, last = int(steps[0]), int(steps[-1])
    if last - first != len(rows) - 1:
        return None
    marks = slice((len(rows) - 1) % _STRIDE, None, _STRIDE)
    try:
        every = [array("d", map(float, column)) for column in (losses, grad_norms, steps_s)]
        marked = [array("d", map(float, column[marks])) for column in (sim_ts if sim_ts[-1] else ts, tokens, lrs)]
        told_t = float(ts[-1])
        tokens_a_step = float(rates[-1]) * every[2][-1]
    except ValueError:
        return None
    worked_s = sum(every[2])
    numbers_are_finite = all(map(math.isfinite, (*(sum(column) for column in marked), tokens_a_step, told_t)))
    if not numbers_are_finite or not 0.0 < worked_s < _MUCH_S:
        return None
    numbered = array("d", range(first, last + 1))
    whole = {
        "v": 1, "t": told_t, "kind": "step", "step": last, "tokens": int(marked[1][-1]),
        "loss": every[0][-1], "lr": marked[2][-1], "grad_norm": every[1][-1],
        "step_s": worked_s, "tok_s": len(rows) * tokens_a_step / worked_s,
    }  # fmt: skip
    if sim_ts[-1]:
        whole["sim_t"] = marked[0][-1]
    return Steps(
        steps=numbered, losses=every[0], grad_norms=every[1], steps_s=every[2], marked=numbered[marks],
        ts=marked[0], tokens=marked[1], lrs=marked[2], tokens_a_step=tokens_a_step, whole=whole,
    )  # fmt: skip
