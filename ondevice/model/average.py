"""The mean of several checkpoints' weights, tensor by tensor in float64, into a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from ondevice.errors import CheckpointError
from ondevice.model import safetensors
from ondevice.model.decoder import Decoder
from ondevice.model.weights import load_weights

__all__ = ["load_average"]


def load_average(paths: Sequence[Path], model: Decoder) -> None:
    """Memory for one tensor in float64 beside the model. Raises CheckpointError as `load_weights`."""
    load_weights(paths[0], model)
    with ExitStack() as opened, torch.no_grad():
        files = [opened.enter_context(safetensors.open_file(path)) for path in paths]
        for name, parameter in model.named_parameters():
            total = torch.zeros(parameter.shape, dtype=torch.float64)
            for path, file in zip(paths, files, strict=True):
                if name not in file.names or tuple(file.shape(name)) != tuple(parameter.shape):
                    raise CheckpointError(f"{path}: '{name}' is not as in {paths[0]}; only like can be averaged.")
                total += file.tensor(name)
            parameter.copy_(total / len(files))
