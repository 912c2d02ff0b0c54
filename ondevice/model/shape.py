"""Which shapes are decoders we can build. Pure checks on a `ModelShape`; no torch."""

from __future__ import annotations

import math

from ondevice.errors import UsageError, nearest
from ondevice.run.recipe import ModelShape

__all__ = ["ARCHITECTURES", "check_shape"]

ARCHITECTURES = ("gpt2", "llama")

_SIZES = ("vocab_size", "context", "layers", "width", "heads", "kv_heads", "hidden")


def check_shape(shape: ModelShape) -> None:
    """Raises UsageError, one sentence naming the config key, when no decoder has this shape."""
    if shape.arch not in ARCHITECTURES:
        known = " or ".join(ARCHITECTURES)
        raise UsageError(f"model.arch is {known}, not {shape.arch!r}{nearest(str(shape.arch), ARCHITECTURES)}.")
    for key in _SIZES:
        value = getattr(shape, key)
        if type(value) is not int or value < 1:
            raise UsageError(f"model.{key} must be a whole number of at least 1, not {value!r}.")
    _check_numbers(shape)
    _check_heads(shape)


def _check_numbers(shape: ModelShape) -> None:
    if not 0.0 <= shape.dropout < 1.0:
        raise UsageError(f"model.dropout must be at least 0 and below 1, not {shape.dropout!r}.")
    scaling = shape.rope_scaling
    if scaling is not None and scaling.kind not in ("linear", "llama3"):
        raise UsageError(f"model.rope_scaling is linear or llama3, not {scaling.kind!r}.")
    for key in ("rope_theta", "norm_eps"):
        value = getattr(shape, key)
        if not (math.isfinite(value) and value > 0.0):
            raise UsageError(f"model.{key} must be a finite number above 0, not {value!r}.")


def _check_heads(shape: ModelShape) -> None:
    if shape.width % shape.heads:
        raise UsageError(f"model.heads = {shape.heads} does not divide model.width = {shape.width}.")
    if shape.heads % shape.kv_heads:
        raise UsageError(f"model.kv_heads = {shape.kv_heads} does not divide model.heads = {shape.heads}.")
    if shape.arch == "gpt2" and shape.kv_heads != shape.heads:
        raise UsageError(
            f"model.kv_heads = {shape.kv_heads} must equal model.heads = {shape.heads} for gpt2, "
            "which has no grouped-query attention."
        )
    if shape.arch == "llama" and shape.head_dim % 2:
        raise UsageError(
            f"model.width = {shape.width} with model.heads = {shape.heads} makes heads {shape.head_dim} wide, but "
            "rotary embeddings need an even number: change one of the two, or take model.arch = gpt2."
        )
