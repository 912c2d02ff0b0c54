"""The adapter that a config wishes for: which matrices, how large. No torch, for the plan's arithmetic."""

from __future__ import annotations

import dataclasses

from ondevice.errors import UsageError
from ondevice.model.targets import chosen_targets
from ondevice.run.recipe import AdapterRecipe, ModelShape
from ondevice.run.schema import AdapterConfig, Config

__all__ = ["adapter_of", "filled"]

_RANK, _ALPHA = 8, 16.0
_DEFAULT_TARGETS = {"gpt2": ("c_attn",), "llama": ("q_proj", "v_proj")}


def adapter_of(config: Config, shape: ModelShape) -> AdapterRecipe | None:
    """The adapter that a config wishes for. Raises UsageError for targets that the model has not, or no base."""
    wish = config.adapter
    if wish.method == "none":
        return None
    if not config.model.base:
        raise UsageError("adapter.method = 'lora' adapts a model that has learned already: name it with model.base.")
    names, wish = wish.targets or _DEFAULT_TARGETS[shape.arch], filled(wish)
    assert wish.rank is not None and wish.alpha is not None
    return AdapterRecipe(
        rank=wish.rank,
        alpha=wish.alpha,
        dropout=wish.dropout,
        targets=tuple(target.name for target in chosen_targets(shape, names)),
        rank_stabilized=bool(wish.rank_stabilized),
        base_format=wish.base_format,
    )


def filled(wish: AdapterConfig) -> AdapterConfig:
    """The wish with the usual numbers where none are given."""
    return dataclasses.replace(
        wish,
        rank=wish.rank if wish.rank is not None else _RANK,
        alpha=wish.alpha if wish.alpha is not None else _ALPHA,
        rank_stabilized=bool(wish.rank_stabilized),
    )
