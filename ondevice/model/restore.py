"""From a checkpoint to the whole model: the one place where what a run learned is put back among all tokens' rows.

Of a trimmed vocabulary a checkpoint has the kept rows alone. The others are those of the base, read from its folder, or
those that a fork of a whole model put aside in ``vocabulary.safetensors``; to the bit in both cases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ondevice.errors import CheckpointError
from ondevice.model import safetensors
from ondevice.model.base import build_for
from ondevice.model.decoder import Decoder
from ondevice.model.weights import load_weights
from ondevice.run.directory import RunDir
from ondevice.run.files import HashedFile
from ondevice.run.papers import paper_faults
from ondevice.run.recipe import Recipe
from ondevice.run.store import Checkpoint
from ondevice.run.vocabulary import read_kept

__all__ = ["load_whole", "write_put_aside"]


def load_whole(run: RunDir, checkpoint: Checkpoint, *, recipe: Recipe | None = None, to_learn: bool = False) -> Decoder:
    """The model of a checkpoint with every token, an adapter beside its matrices. ``recipe``: how else than by the
    run's own it is put together. Raises CheckpointError or DataError, also where the base is gone that it needs."""
    recipe = recipe or run.read_recipe()
    trimmed = None if recipe.adapter is not None else recipe.vocabulary  # adapters have no rows of tokens
    if trimmed is not None and trimmed.put_aside:
        recipe = dataclasses.replace(recipe, vocabulary=None)  # of the base nothing is left
    model = build_for(recipe, fresh=False, to_learn=to_learn)
    kept = None if trimmed is None else read_kept(run, run.read_recipe())
    load_weights(checkpoint.path / "model.safetensors", model, kept=kept)
    if trimmed is not None and trimmed.put_aside:
        _load_put_aside(run, model, kept or ())
    return model


def write_put_aside(path: Path, tables: Mapping[str, Tensor], kept: Sequence[int]) -> None:
    """The rows of a whole model's ``tables`` that are not ``kept``, durably. Raises OSError."""
    with closing(HashedFile(path)) as file:
        safetensors.write(file, {name: table[_left_out(len(table), kept)] for name, table in tables.items()})


@torch.no_grad()
def _load_put_aside(run: RunDir, model: Decoder, kept: Sequence[int]) -> None:
    path = run.put_aside
    if fault := paper_faults(run, run.read_identity()).get(path.name):
        raise CheckpointError(f"{fault.rstrip('.')}; restore it from a copy of the run.")
    own = dict(model.named_parameters())
    with safetensors.open_file(path) as file:
        for name in file.names:
            own[name][_left_out(len(own[name]), kept)] = file.tensor(name).to(own[name].dtype)


def _left_out(size: int, kept: Sequence[int]) -> Tensor:
    """The ids that are not kept, ascending."""
    return torch.from_numpy(np.setdiff1d(np.arange(size), kept, assume_unique=True))
