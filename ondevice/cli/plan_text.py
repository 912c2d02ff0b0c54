"""A plan as lines for a 40-column screen."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ondevice.cli.common import duration
from ondevice.cli.status_text import moment
from ondevice.train.fitting import describe

if TYPE_CHECKING:
    from ondevice.cli.foresight import Foresight
    from ondevice.run.recipe import Fit
    from ondevice.train.fitting import Way
    from ondevice.train.prepare import Prepared
    from ondevice.train.saving import SavePlan

__all__ = ["plan_lines"]

_MOST_WAYS = 8


def plan_lines(prepared: Prepared, foreseen: Foresight | None = None, *, all_ways: bool = False) -> Iterator[str]:
    """What will be trained and what it takes, with the reasons of what was derived.

    ``all_ways``: the ways to cut the work also where memory allows the fastest, so that there is nothing to weigh.
    """
    recipe, fit, expected = prepared.recipe, prepared.fit, prepared.estimate
    model, train = recipe.model, recipe.train
    yield f"Model    {model.arch}, {expected.parameters / 1e6:.2f} M parameters"
    yield f"         {model.layers} layers x {model.width}, context {model.context}, vocabulary {model.vocab_size:,}"
    yield f"Steps    {train.steps:,} x {train.batch} x {model.context} = {train.tokens / 1e6:.2f} M tokens"
    yield f"         {expected.epochs:.2f} epochs, {train.precision}, peak rate {train.lr:.2g}"
    threads = f"{fit.threads} thread{'s' if fit.threads > 1 else ''}"
    yield f"Memory   about {expected.memory.total_mb:,.0f} MB, micro-batch {fit.micro_batch}, {threads}"
    if prepared.measured is not None:
        yield f"         {prepared.measured.peak_mb:,.0f} MB measured, {prepared.measured.step_s:.1f}s a step"
    yield from _memory_lines(prepared)
    if all_ways or not prepared.ways[:1] or not _is_taken(prepared.ways[0], fit):
        yield from _way_lines(prepared)
    if prepared.tok_s is not None:
        yield f"Time     about {duration(expected.train_s)} at {prepared.tok_s:,.0f} tokens/s"
    if foreseen is not None:
        yield from _expected_lines(foreseen)
    yield from _saving_lines(prepared.saving)
    for key, reason in recipe.why.items():
        yield f"  {key}: {reason}"


def _memory_lines(prepared: Prepared) -> Iterator[str]:
    """What holds the memory."""
    parts = {"allocator": "freed, and kept", "head": "logits"}
    held = {key.removesuffix("_mb"): size for key, size in vars(prepared.estimate.memory).items() if size >= 0.5}
    named = [f"{parts.get(name, name)} {size:,.0f}" for name, size in held.items()]
    for first in range(0, len(named), 2):
        yield f"         {', '.join(named[first : first + 2])}"


def _way_lines(prepared: Prepared) -> Iterator[str]:
    """What other ways to cut the work would take."""
    ways = _some(prepared.ways, prepared.fit)
    if not ways[1:]:
        return
    more_mb = 0.0 if prepared.measured is None else prepared.measured.peak_mb - prepared.measured.estimated_mb
    allowed = "quickest first" if prepared.memory_mb is None else f"{prepared.memory_mb:,.0f} MB may be used"
    corrected = "" if prepared.measured is None else ", corrected by what was measured"
    yield f"Ways     {allowed}{corrected}"
    yield "         MB     time of a step"
    for way in ways:
        mark = ">" if _is_taken(way, prepared.fit) else " "
        yield f"        {mark}{way.memory.total_mb + more_mb:<6,.0f} x{way.time:.2f} {describe(way.fit)}"


def _some(ways: Sequence[Way], taken: Fit) -> list[Way]:
    """At most eight of them, evenly, with that which was taken."""
    places = {round(index * (len(ways) - 1) / (_MOST_WAYS - 1)) for index in range(_MOST_WAYS)} if ways else set()
    return [way for place, way in enumerate(ways) if place in places or _is_taken(way, taken)]


def _is_taken(way: Way, fit: Fit) -> bool:
    return dataclasses.replace(way.fit, threads=fit.threads) == fit


def _expected_lines(foreseen: Foresight) -> Iterator[str]:
    """Time with rests and hours, energy and money."""
    about = "about" if foreseen.known else "at least"
    yield f"         {about} {duration(foreseen.open_s)} with all pauses ({foreseen.duty:.0%} work):"
    yield f"         {foreseen.why}"
    if foreseen.done_t is None:
        yield f"         it would never end within its hours, {foreseen.hours}"
    else:
        hours = f", hours {foreseen.hours}" if foreseen.hours else ""
        earliest = "" if foreseen.known else " at the earliest"
        yield f"Done     {moment(foreseen.done_t)}{earliest}, if it began now{hours}"
    if foreseen.energy.wh_left is not None:
        money = f", {foreseen.energy.price_left:,.2g}" if foreseen.energy.price_left is not None else ""
        yield f"Energy   about {foreseen.energy.wh_left:,.3g} Wh{money}"


def _saving_lines(saving: SavePlan) -> Iterator[str]:
    takes = f", about {saving.save_s:.1f}s to write" if saving.save_s is not None else ""
    steps = f" ({saving.worst_loss_steps:,} steps)" if saving.worst_loss_steps is not None else ""
    yield f"Saving   {_mb(saving.checkpoint_mb)} a checkpoint{takes}"
    yield f"         every {duration(saving.interval_s)}; a kill loses at most {duration(saving.worst_loss_s)}{steps}"
    yield f"Disk     up to {_mb(saving.disk_mb)}: {saving.complete} newest, {saving.others} kept for another reason,"
    yield "         one being written, and what must stay free"


def _mb(megabytes: float) -> str:
    return f"{megabytes:,.0f} MB" if megabytes >= 10 else f"{megabytes:.2f} MB"
