"""Models that the tests of exports write and read back."""

from __future__ import annotations

import torch

from ondevice.model.build import build_model
from ondevice.model.decoder import Decoder
from ondevice.run.recipe import ModelShape


def perturbed(shape: ModelShape, *, by: float = 0.1) -> Decoder:
    """A decoder whose weights are large enough for logits of several units, norms and biases included."""
    model = build_model(shape, seed=11).eval()
    generator = torch.Generator().manual_seed(12)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=by)
    return model
