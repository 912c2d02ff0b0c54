"""From a shape and a seed to a decoder."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ondevice.model.decoder import Decoder
from ondevice.model.gpt2 import Gpt2
from ondevice.model.llama import Llama
from ondevice.model.shape import check_shape
from ondevice.run.recipe import ModelShape

__all__ = ["build_model", "initialise"]

_STD = 0.02  # GPT-2's, for tables and matrices
_RESIDUAL = ("attn.out.weight", "mlp.down.weight")


def build_model(shape: ModelShape, *, seed: int | None, init: str = "gpt2") -> Decoder:
    """A decoder in training mode. The same seed gives the same weights whatever the global random state and the
    number of threads; ``seed=None`` leaves weights uninitialised, for loading. Raises UsageError for a bad shape.

    ::

        model = build_model(shape, seed=1337)
        logits = model.logits(model(ids))
    """
    check_shape(shape)
    model: Decoder = Gpt2(shape) if shape.arch == "gpt2" else Llama(shape)
    if seed is not None:
        initialise(model, seed=seed, init=init)
    return model


@torch.no_grad()
def initialise(model: Decoder, *, seed: int, init: str = "gpt2") -> None:
    """Normal weights. gpt2: all alike, those that add to the residual stream smaller by sqrt(2 * layers). fan-in:
    matrices of blocks by 1 / sqrt(columns), and those that add to the residual stream begin at zero, so
    that every block begins as if it were not there."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, _std(name, parameter, model.shape.layers, init), generator=generator)
        else:
            nn.init.constant_(parameter, 0.0 if name.endswith(".bias") else 1.0)


def _std(name: str, parameter: Tensor, layers: int, init: str) -> float:
    residual = name.endswith(_RESIDUAL)
    if init == "fan-in" and name.startswith("blocks."):
        return 0.0 if residual else 1.0 / math.sqrt(parameter.shape[1])
    return _STD / math.sqrt(2 * layers) if residual else _STD
