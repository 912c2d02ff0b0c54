"""The learning rate of every step: pure functions of the recipe.

Knows no optimizer and keeps no state, so that resuming a schedule is evaluating it at another step.
"""

from __future__ import annotations

import math

from ondevice.run.recipe import TrainRecipe

__all__ = ["learning_rate", "tail_rate"]


def learning_rate(recipe: TrainRecipe, step: int) -> float:
    """Learning rate of step ``step`` (from ``recipe.start_step``) of ``recipe.steps``; counted from the start step:

    Warmup: ``lr * (step + 1) / warmup_steps``. Then constant; linear or cosine from lr to lr_min over the rest; or WSD:
    lr until the last ``tail_steps``, which decay by `tail_rate`. Ramp, for range tests: from lr_min up to lr, each
    step by the same factor.
    """
    done, planned = step - recipe.start_step, recipe.planned_steps
    if done < recipe.warmup_steps:
        return recipe.lr * (done + 1) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return recipe.lr
    if recipe.schedule == "wsd":
        start, length = planned - recipe.tail_steps, recipe.tail_steps
        if done < start:
            return recipe.lr
        return tail_rate(recipe.tail, (done - start) / length, peak=recipe.lr, low=recipe.lr_min)
    if recipe.schedule == "ramp":
        return float(recipe.lr_min * (recipe.lr / recipe.lr_min) ** (done / max(1, planned - 1)))
    progress = (done - recipe.warmup_steps) / max(1, planned - recipe.warmup_steps)
    return tail_rate(recipe.schedule, min(1.0, progress), peak=recipe.lr, low=recipe.lr_min)


def tail_rate(shape: str, tau: float, *, peak: float, low: float) -> float:
    """Rate at share ``tau`` in [0, 1] of a decay from ``peak`` to ``low``.

    inverse-proportional: ``1 / (tau / low + (1 - tau) / peak)``; with ``low = 0`` it reaches 0 at once, so it needs a
    positive ``low``. 1-sqrt: Haegele et al., arXiv 2405.18392.
    """
    if shape == "inverse-proportional":
        return 1.0 / (tau / low + (1.0 - tau) / peak)
    share = {
        "linear": 1.0 - tau,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * tau)),
        "1-sqrt": 1.0 - math.sqrt(tau),
    }[shape]
    return low + (peak - low) * share
