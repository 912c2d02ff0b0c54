"""Whether a run keeps what its frozen blocks give, what that takes and spares, and the cache of a launch.

It pays where rows of examples come more than once and blocks below ``train.top_layers`` stay as they are. Plain text is
cut anew in every pass, so no window of it comes twice.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass

from ondevice.device.memory import MIB
from ondevice.errors import UsageError
from ondevice.model.counts import count_breakdown
from ondevice.run.directory import RunDir
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.schema import Config, Limits
from ondevice.train.below import Below
from ondevice.train.checkpoint import exactness_facts
from ondevice.train.fitting import time_of
from ondevice.train.frozen_cache import FrozenCache
from ondevice.train.saving import plan_saving

__all__ = ["CachePlan", "check_cache", "keep_states", "plan_cache", "told_cache"]

_FLOAT = 4
_WORTH = 0.02  # of the time


@dataclass(frozen=True, kw_only=True)
class CachePlan:
    """``size_mb`` on the disk when every row is in it; ``spared``: share of the training's time."""

    size_mb: float
    passes: float
    spared: float


def check_cache(config: Config, *, packed: bool) -> None:
    """Raises UsageError where a cache is wished for and nothing could be kept in it."""
    if not config.fit.frozen_cache:
        return
    if config.train.top_layers is None:
        raise UsageError("'fit.frozen_cache' keeps what blocks below train.top_layers give; give that too.")
    if not packed:
        raise UsageError(
            "'fit.frozen_cache' is for examples: every pass over plain text cuts it anew, so no window comes twice; "
            "leave it out."
        )
    if config.model.dropout:
        raise UsageError("'fit.frozen_cache' needs blocks that draw nothing; set model.dropout = 0 or leave it out.")


def plan_cache(recipe: Recipe, fit: Fit, *, rows: int) -> CachePlan | None:
    """By arithmetic; None where no block is frozen below others. ``rows``: of the data, each once."""
    shape, top_layers = recipe.trained, recipe.train.top_layers
    if top_layers is None or top_layers >= shape.layers or shape.dropout:
        return None
    passes = recipe.train.planned_steps * recipe.train.batch / max(1, rows)
    counts = count_breakdown(shape)
    blocks = counts.attention + counts.mlp
    forward = blocks / (blocks + shape.vocab_size * shape.width) * (1 - top_layers / shape.layers) / 3
    step = time_of(fit, shape, start=fit.micro_batch, chunk=fit.loss_chunk_tokens, top_layers=top_layers)
    return CachePlan(
        size_mb=rows * shape.context * shape.width * _FLOAT / MIB,
        passes=passes,
        spared=max(0.0, 1 - 1 / max(1.0, passes)) * forward / step,
    )


def told_cache(plan: CachePlan, *, wished: bool) -> str:
    """Its size and whether it pays, for the reasons of a plan."""
    takes = (
        f"up to {plan.size_mb:,.0f} MB of disk spare about {plan.spared:.0%} of the time in {plan.passes:.1f} passes"
    )
    if plan.spared < _WORTH:
        return f"{'does not pay' if wished else 'off'}: {takes}"
    return takes if wished else f"off; with true {takes}"


def keep_states(below: Below | None, run: RunDir, recipe: Recipe, limits: Limits, *, rows: int | None) -> str:
    """Gives frozen blocks the cache of this run, as large as the disk allows beside the checkpoints; a sentence where
    not every row has a place. Another recipe, software, or number of threads begins it anew."""
    if below is None or rows is None:
        return ""
    folder = run.path / "cache"
    free_mb = shutil.disk_usage(run.path).free / MIB + _held_mb(folder)
    shape = recipe.model
    cache = FrozenCache(
        folder,
        {"recipe": recipe.sha256, "blocks": below.count, **exactness_facts(recipe)},
        rows=rows,
        tokens=shape.context,
        width=shape.width,
        room_mb=free_mb - plan_saving(recipe, limits, save_mb_s=None, tok_s=None).disk_mb,
        least_free_mb=limits.min_free_disk_mb,
    )
    below.cache = cache
    if cache.places >= rows:
        return ""
    return f"The disk has room for what frozen blocks give for {cache.places:,} of {rows:,} rows; others are computed."


def _held_mb(folder: os.PathLike[str]) -> float:
    with suppress(OSError):
        return os.stat(os.path.join(folder, "frozen.bin")).st_blocks * 512 / MIB
    return 0.0
