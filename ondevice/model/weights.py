"""The weights of a checkpoint file into a decoder."""

from __future__ import annotations

from pathlib import Path

import torch

from ondevice.errors import CheckpointError
from ondevice.model import safetensors
from ondevice.model.decoder import Decoder

__all__ = ["load_weights"]


def load_weights(path: Path, model: Decoder) -> None:
    """Copies every tensor of a safetensors file into the parameter of that name. Raises CheckpointError on any
    difference in names or shapes."""
    own = dict(model.named_parameters())
    with safetensors.open_file(path) as file, torch.no_grad():
        if set(file.names) != set(own):
            odd = sorted(set(file.names) ^ set(own))[0]
            raise CheckpointError(f"{path}: its tensors are not this model's ('{odd}' is on one side only).")
        for name, parameter in own.items():
            if tuple(file.shape(name)) != tuple(parameter.shape):
                raise CheckpointError(
                    f"{path}: '{name}' has shape {tuple(file.shape(name))}, the model {tuple(parameter.shape)}."
                )
            file.copy_into(name, parameter)
