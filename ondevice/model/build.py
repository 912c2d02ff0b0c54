"""From a shape and a seed to a decoder."""

from __future__ import annotations

import math

import torch
from torch import nn

from ondevice.model.decoder import Decoder
from ondevice.model.gpt2 import Gpt2
from ondevice.model.llama import Llama
from ondevice.model.shape import check_shape
from ondevice.run.recipe import ModelShape

__all__ = ["build_model", "initialise"]

_STD = 0.02  # GPT-2's, for tables and matrices
_RESIDUAL = ("attn.out.weight", "mlp.down.weight")


def build_model(shape: ModelShape, *, seed: int | None) -> Decoder:
    """A decoder in training mode. The same seed gives the same weights whatever the global random state and the
    number of threads; ``seed=None`` leaves weights uninitialised, for loading. Raises UsageError for a bad shape.

    ::

        model = build_model(shape, seed=1337)
        logits = model.logits(model(ids))
    """
    check_shape(shape)
    model: Decoder = Gpt2(shape) if shape.arch == "gpt2" else Llama(shape)
    if seed is not None:
        initialise(model, seed=seed)
    return model


@torch.no_grad()
def initialise(model: Decoder, *, seed: int) -> None:
    """GPT-2's initialisation: normal weights, those that add to the residual stream smaller by sqrt(2 * layers)."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            scale = math.sqrt(2 * model.shape.layers) if name.endswith(_RESIDUAL) else 1.0
            parameter.normal_(0.0, _STD / scale, generator=generator)
        else:
            nn.init.constant_(parameter, 0.0 if name.endswith(".bias") else 1.0)
