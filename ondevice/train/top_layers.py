"""Partial fine-tuning as a config wishes for it: whether the model has such blocks, and how much learns. No torch."""

from __future__ import annotations

from ondevice.errors import UsageError
from ondevice.model.counts import count_learned, count_parameters
from ondevice.run.recipe import ModelShape
from ondevice.run.schema import Config

__all__ = ["check_top_layers", "told_top_layers"]


def check_top_layers(config: Config, shape: ModelShape, *, learned: bool) -> None:
    """Raises UsageError for more blocks than there are, an adapter beside them, or a model that has not ``learned``."""
    top_layers = config.train.top_layers
    if top_layers is None:
        return
    if top_layers > shape.layers:
        raise UsageError(
            f"'train.top_layers' {top_layers} is more than the {shape.layers} blocks of this model; say how many of "
            "them learn, or leave it out to train them all."
        )
    if config.adapter.method != "none":
        raise UsageError(
            "'train.top_layers' does not go with adapter.method = 'lora', which trains no block; leave one out."
        )
    if not learned:
        raise UsageError(
            "'train.top_layers' keeps what the blocks below have learned, and this model begins with nothing; name one "
            "with model.base."
        )


def told_top_layers(shape: ModelShape, top_layers: int) -> str:
    """What learns, for the reasons of a plan."""
    count, whole = count_learned(shape, top_layers).total, count_parameters(shape)
    head = "" if shape.tied else " and the head"
    return f"the last {top_layers} of {shape.layers} blocks, the final norm{head} learn: {count:,} of {whole:,} numbers"
