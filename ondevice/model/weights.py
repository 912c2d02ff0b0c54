"""The weights of a checkpoint file into a decoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ondevice.errors import CheckpointError
from ondevice.model import safetensors
from ondevice.model.decoder import Decoder
from ondevice.model.vocabulary import TABLES

__all__ = ["load_weights"]


def load_weights(path: Path, model: Decoder, *, kept: Sequence[int] | None = None) -> None:
    """Copies every tensor of a safetensors file into the parameter of that name. Raises CheckpointError on any
    difference in names or shapes.

    ``kept``: the tables of the file have rows for these ids alone, of a trimmed vocabulary; those of the model have
    all, and the other rows stay as they are. A model of a trimmed vocabulary takes its rows out of whole tables.
    """
    own = dict(model.named_parameters())
    with safetensors.open_file(path) as file, torch.no_grad():
        if set(file.names) != set(own):
            odd = sorted(set(file.names) ^ set(own))[0]
            raise CheckpointError(f"{path}: its tensors are not this model's ('{odd}' is on one side only).")
        for name, parameter in own.items():
            ids = kept if name in TABLES else None
            own_rows = model.vocabulary if name in TABLES else None
            if own_rows is not None and file.shape(name) == (own_rows.size, *parameter.shape[1:]):
                parameter.copy_(file.tensor(name)[own_rows.kept])
                continue
            wanted = tuple(parameter.shape) if ids is None else (len(ids), *parameter.shape[1:])
            if tuple(file.shape(name)) != wanted:
                raise CheckpointError(f"{path}: '{name}' has shape {tuple(file.shape(name))}, the model {wanted}.")
            if ids is None:
                file.copy_into(name, parameter)
            else:
                parameter[torch.tensor(ids)] = file.tensor(name).to(parameter.dtype)
