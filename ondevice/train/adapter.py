"""The adapter of a recipe, by the wish: which matrices, how large, and what else follows from training only that."""

from __future__ import annotations

import dataclasses

from ondevice.errors import UsageError
from ondevice.model.lora import adapter_parameters, chosen_targets
from ondevice.run.recipe import AdapterRecipe, ModelShape, Recipe
from ondevice.run.schema import Config
from ondevice.train.plan import OPTIMIZER_STATE

__all__ = ["adapter_of", "with_adapter"]

_DEFAULT_TARGETS = {"gpt2": ("c_attn",), "llama": ("q_proj", "v_proj")}
_LR = 2e-4


def adapter_of(config: Config, shape: ModelShape) -> AdapterRecipe | None:
    """The adapter that a config wishes for. Raises UsageError for targets that the model has not, or no base."""
    wish = config.adapter
    if wish.method == "none":
        return None
    if not config.model.base:
        raise UsageError("adapter.method = 'lora' adapts a model that has learned already: name it with model.base.")
    names = wish.targets or _DEFAULT_TARGETS[shape.arch]
    return AdapterRecipe(
        rank=wish.rank,
        alpha=wish.alpha,
        dropout=wish.dropout,
        targets=tuple(target.name for target in chosen_targets(shape, names)),
        rank_stabilized=wish.rank_stabilized,
        base_format=wish.base_format,
    )


def with_adapter(recipe: Recipe, config: Config) -> Recipe:
    """The recipe with the adapter of the config; adapters learn by AdamW, at a higher rate than whole models."""
    adapter = adapter_of(config, recipe.model)
    if adapter is None:
        return recipe
    count = adapter_parameters(recipe.model, adapter)
    why = {**recipe.why, "adapter": f"{count:,} numbers learn beside {', '.join(adapter.targets)}, by AdamW"}
    train = dataclasses.replace(recipe.train, optimizer="adamw", optimizer_state=OPTIMIZER_STATE["adamw"])
    if config.train.lr is None:
        train = dataclasses.replace(train, lr=_LR, lr_min=config.train.lr_min or _LR / 10)
        why["train.lr"] = f"{_LR:g}, usual for adapters"
    return dataclasses.replace(recipe, adapter=adapter, train=train, why=why)
