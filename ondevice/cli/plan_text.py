"""A plan as lines for a 40-column screen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ondevice.cli.common import duration

if TYPE_CHECKING:
    from ondevice.train.prepare import Prepared
    from ondevice.train.saving import SavePlan

__all__ = ["plan_lines"]


def plan_lines(prepared: Prepared) -> Iterator[str]:
    """What will be trained and what it takes, with the reasons of what was derived."""
    recipe, fit, expected = prepared.recipe, prepared.fit, prepared.estimate
    model, train = recipe.model, recipe.train
    yield f"Model    {model.arch}, {expected.parameters / 1e6:.2f} M parameters"
    yield f"         {model.layers} layers x {model.width}, context {model.context}, vocabulary {model.vocab_size:,}"
    yield f"Steps    {train.steps:,} x {train.batch} x {model.context} = {train.tokens / 1e6:.2f} M tokens"
    yield f"         {expected.epochs:.2f} passes over the text, {train.precision}, peak rate {train.lr:.2g}"
    yield f"Memory   about {expected.memory.total_mb:,.0f} MB, micro-batch {fit.micro_batch}, {fit.threads} threads"
    if prepared.tok_s is not None:
        yield f"Time     about {duration(expected.train_s)} at {prepared.tok_s:,.0f} tokens/s"
    yield from _saving_lines(prepared.saving)
    for key, reason in recipe.why.items():
        yield f"  {key}: {reason}"


def _saving_lines(saving: SavePlan) -> Iterator[str]:
    takes = f", about {saving.save_s:.1f}s to write" if saving.save_s is not None else ""
    steps = f" ({saving.worst_loss_steps:,} steps)" if saving.worst_loss_steps is not None else ""
    yield f"Saving   {_mb(saving.checkpoint_mb)} a checkpoint{takes}"
    yield f"         every {duration(saving.interval_s)}; a kill loses at most {duration(saving.worst_loss_s)}{steps}"
    yield f"Disk     up to {_mb(saving.disk_mb)}: {saving.complete} newest, {saving.others} kept for another reason,"
    yield "         one being written, and what must stay free"


def _mb(megabytes: float) -> str:
    return f"{megabytes:,.0f} MB" if megabytes >= 10 else f"{megabytes:.2f} MB"
