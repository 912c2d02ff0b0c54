"""The learning rate of every step: pure functions of the recipe.

Knows no optimizer and keeps no state, so that resuming a schedule is evaluating it at another step.

Where a revision makes training longer or shorter, the rate goes on without a jump: it is anchored at the furthest step
that was trained. What was trained keeps the rates it had; from there linear and cosine fall from the rate of that step
to lr_min over what is now left, WSD stays at that rate until its last steps, and a warmup that is not over goes on. A
run that had come down to lr_min therefore learns what is added at lr_min; constant and WSD suit text that keeps coming.
"""

from __future__ import annotations

import dataclasses
import math

from ondevice.run.recipe import Anchor, TrainRecipe

__all__ = ["anchored", "learning_rate", "tail_rate"]


def learning_rate(recipe: TrainRecipe, step: int) -> float:
    """Learning rate of step ``step`` (from ``recipe.start_step``) of ``recipe.steps``; counted from the start step:

    Warmup: ``lr * (step + 1) / warmup_steps``. Then constant; linear or cosine from lr to lr_min over the rest; or WSD:
    lr until the last ``tail_steps``, which decay by `tail_rate`. Ramp, for range tests: from lr_min up to lr, each
    step by the same factor. After an anchor its rate takes the place of lr (of lr_min on a ramp).
    """
    warm = recipe.start_step + recipe.warmup_steps
    if step < warm:
        return recipe.lr * (step - recipe.start_step + 1) / recipe.warmup_steps
    if recipe.schedule == "constant":
        return recipe.lr
    begin, peak = warm, recipe.lr
    end, tail_steps = recipe.steps, recipe.tail_steps
    for anchor in recipe.anchors:
        if step < anchor.step:
            end, tail_steps = anchor.steps, anchor.tail_steps
            break
        if anchor.step >= warm:
            begin, peak = anchor.step, anchor.lr
    if recipe.schedule == "ramp":
        low = recipe.lr_min if begin == warm else peak
        return float(low * (recipe.lr / low) ** ((step - begin) / max(1, end - 1 - begin)))
    if recipe.schedule != "wsd":
        progress = (step - begin) / max(1, end - begin)
        return tail_rate(recipe.schedule, min(1.0, progress), peak=peak, low=recipe.lr_min)
    # A WSD tail may begin inside the warmup, whose steps it then has lost already.
    start = max(end - tail_steps, begin) if recipe.anchors else end - tail_steps
    if step < start:
        return peak
    return tail_rate(recipe.tail, (step - start) / max(1, end - start), peak=peak, low=recipe.lr_min)


def anchored(before: TrainRecipe, now: TrainRecipe, *, reached: int) -> TrainRecipe:
    """A revision's recipe with the schedule anchored at ``reached``, the furthest step that was trained, where the
    revision changed how long training is."""
    if (now.steps, now.tail_steps) == (before.steps, before.tail_steps) or reached <= before.start_step:
        return now
    kept = tuple(anchor for anchor in before.anchors if anchor.step < reached)
    later = [anchor for anchor in before.anchors if anchor.step >= reached]
    if later and later[0].step == reached:  # nothing was trained since the last revision
        return dataclasses.replace(now, anchors=(*kept, later[0]))
    held = later[0] if later else before
    here = Anchor(step=reached, lr=learning_rate(before, reached), steps=held.steps, tail_steps=held.tail_steps)
    return dataclasses.replace(now, anchors=(*kept, here))


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
