"""The adapter of a recipe, and what else follows from training only that."""

from __future__ import annotations

import dataclasses

from ondevice.model.targets import adapter_parameters
from ondevice.run.recipe import Recipe
from ondevice.run.schema import Config
from ondevice.train.adapter_wish import adapter_of
from ondevice.train.fitting import optimizer_state_of

__all__ = ["with_adapter"]

_LR = 2e-4


def with_adapter(recipe: Recipe, config: Config) -> Recipe:
    """The recipe with the adapter of the config; adapters learn by AdamW, at a higher rate than whole models."""
    adapter = adapter_of(config, recipe.model)
    if adapter is None:
        return recipe
    count = adapter_parameters(recipe.model, adapter)
    why = {**recipe.why, "adapter": f"{count:,} numbers learn beside {', '.join(adapter.targets)}, by AdamW"}
    train = dataclasses.replace(recipe.train, optimizer="adamw", optimizer_state=optimizer_state_of(config))
    if config.train.lr is None:
        train = dataclasses.replace(train, lr=_LR, lr_min=config.train.lr_min or _LR / 10)
        why["train.lr"] = f"{_LR:g}, usual for adapters"
    return dataclasses.replace(recipe, adapter=adapter, train=train, why=why)
