"""How often to save, and what saving will take: arithmetic for the keeper and the plan. No torch, no disk."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ondevice.model.counts import count_breakdown, count_learned
from ondevice.model.targets import adapter_parameters
from ondevice.run.recipe import Recipe
from ondevice.run.schema import Limits
from ondevice.train.memory import PACKED_BYTES

__all__ = ["SHARE", "SavePlan", "plan_saving", "save_interval_s"]

SHARE = 0.02  # of the time may go to saving
LONGEST_S = 1800.0
_MB = 2.0**20
_FLOAT = 4
_NARROW = 2  # bytes of a bf16 weight


def save_interval_s(save_s: float, save_every_s: float) -> float:
    """Seconds between saves: ``save_s / 0.02``, at least ``save_every_s``, at most 30 minutes (or ``save_every_s``)."""
    return max(save_every_s, min(save_s / SHARE, LONGEST_S))


@dataclass(frozen=True, kw_only=True)
class SavePlan:
    """What a run's checkpoints will take. ``light_mb`` is one without optimizer state; times are None where the
    disk or the steps were not timed. A kill loses at most ``worst_loss_s``, which is ``worst_loss_steps``."""

    checkpoint_mb: float
    light_mb: float
    save_s: float | None
    interval_s: float
    worst_loss_s: float
    worst_loss_steps: int | None
    complete: int
    others: int
    disk_mb: float


def plan_saving(recipe: Recipe, limits: Limits, *, save_mb_s: float | None, tok_s: float | None) -> SavePlan:
    """The plan at ``save_mb_s`` (write, fsync and read back) and ``tok_s`` tokens a second."""
    light_mb, checkpoint_mb = _sizes_mb(recipe)
    save_s = checkpoint_mb / save_mb_s if save_mb_s else None
    step_s = recipe.train.batch * recipe.model.context / tok_s if tok_s else None
    interval_s = save_interval_s(save_s or 0.0, limits.save_every_s)
    worst_s = interval_s + (save_s or 0.0) + (step_s or 0.0)  # the next save may be under way
    if limits.save_every_steps and step_s:
        worst_s = min(worst_s, limits.save_every_steps * step_s + (save_s or 0.0))
    others = limits.keep_best + limits.keep_best_quality
    others += recipe.train.planned_steps // limits.keep_every_steps if limits.keep_every_steps else 0
    other_mb = light_mb if limits.drop_old_optimizer else checkpoint_mb
    return SavePlan(
        checkpoint_mb=checkpoint_mb,
        light_mb=light_mb,
        save_s=save_s,
        interval_s=interval_s,
        worst_loss_s=worst_s,
        worst_loss_steps=None if step_s is None else min(recipe.train.planned_steps, math.ceil(worst_s / step_s)),
        complete=limits.keep_last,
        others=others,
        disk_mb=(limits.keep_last + 1) * checkpoint_mb + others * other_mb + limits.min_free_disk_mb,
    )


def _sizes_mb(recipe: Recipe) -> tuple[float, float]:
    """Megabytes (2^20 bytes) without and with optimizer state: two values a parameter, Muon's matrices one; and one
    more where the weights in training are saved beside their average. An adapter's state is counted in fp32: many of
    its matrices are too small for 8 bits."""
    if recipe.adapter is not None:  # the base stays where it is
        light_mb = adapter_parameters(recipe.trained, recipe.adapter) * _FLOAT / _MB
        return light_mb, (4 if recipe.train.average else 3) * light_mb
    learned = count_learned(recipe.trained, recipe.train.top_layers)
    single = learned.attention + learned.mlp if recipe.train.optimizer == "muon" else 0
    state = PACKED_BYTES if recipe.train.optimizer_state.endswith("int8") else _FLOAT
    number = _NARROW if "bf16" in recipe.train.optimizer_state else _FLOAT
    weights = count_breakdown(recipe.trained).total * number / _MB
    live = learned.total if recipe.train.average else 0
    return weights, weights + ((2 * learned.total - single) * state + live * _FLOAT) / _MB
