"""The model that a run begins with: found when the run is planned, loaded when its first step is near.

The recipe names the folder and the hash of its weights; from the first checkpoint on a run no longer needs the folder.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from ondevice.errors import CheckpointError
from ondevice.model.decoder import Decoder
from ondevice.model.hugging_face import HuggingFaceModel, open_hugging_face
from ondevice.run.recipe import BaseRecipe
from ondevice.run.schema import Config
from ondevice.train.wish import base_folder

__all__ = ["base_recipe", "load_base", "read_base"]

_BLOCK = 1 << 22  # bytes


def read_base(config: Config) -> HuggingFaceModel | None:
    """The base that a config names, opened; None where it names none. Raises CheckpointError, DataError."""
    folder = base_folder(config)
    return None if folder is None else open_hugging_face(folder)


def base_recipe(base: HuggingFaceModel | None) -> BaseRecipe | None:
    """What the recipe remembers of it."""
    if base is None:
        return None
    return BaseRecipe(path=str(base.folder), family=base.family, sha256=_hash_of(base))


def _hash_of(base: HuggingFaceModel) -> str:
    """SHA-256 over the files of the weights, in order of their names."""
    whole = hashlib.sha256()
    for path in sorted(base.weights.files):
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                whole.update(block)
    return whole.hexdigest()


@torch.no_grad()
def load_base(model: Decoder, recipe: BaseRecipe) -> None:
    """Copies the base's weights into a model of its shape, tensor by tensor.

    Raises CheckpointError where the folder is gone or its weights are other ones than the recipe's.
    """
    folder = Path(recipe.path)
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: the model that this run begins with is gone; put it back there until the first checkpoint is "
            "written."
        )
    base = open_hugging_face(folder, context=model.shape.context)
    if _hash_of(base) != recipe.sha256:
        raise CheckpointError(f"{folder}: its weights are not those that this run was planned with; put them back.")
    own = dict(model.named_parameters())
    for name, tensor in base.tensors():
        own[name].copy_(tensor)
