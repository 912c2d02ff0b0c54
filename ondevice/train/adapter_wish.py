"""The adapter that a config wishes for: which matrices, how large. No torch, for the plan's arithmetic."""

from __future__ import annotations

from ondevice.errors import UsageError
from ondevice.model.targets import chosen_targets
from ondevice.run.recipe import AdapterRecipe, ModelShape
from ondevice.run.schema import Config

__all__ = ["adapter_of"]

_DEFAULT_TARGETS = {"gpt2": ("c_attn",), "llama": ("q_proj", "v_proj")}


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
