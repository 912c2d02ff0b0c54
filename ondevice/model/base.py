"""The model that a run begins with, and the whole model of a run: its base, its adapter, its own weights.

A recipe names the base's folder and the hash of its weights. A run that trains every weight needs the folder until its
first checkpoint; one that trains an adapter needs it always, and an adapter to begin with until its first checkpoint.
One that trims its vocabulary trains on without it, and needs it wherever the whole model is put together again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from ondevice.device.memory import give_back_large_blocks, give_back_memory
from ondevice.errors import CheckpointError
from ondevice.model.build import build_model
from ondevice.model.decoder import Decoder
from ondevice.model.frozen_decoder import build_frozen, fill, seal
from ondevice.model.hugging_face import HuggingFaceModel, open_hugging_face
from ondevice.model.lora import add_lora
from ondevice.model.narrow import is_narrow, narrow
from ondevice.model.peft import TENSORS, load_adapter, open_peft
from ondevice.model.top_layers import freeze_below
from ondevice.model.vocabulary import TABLES, Vocabulary
from ondevice.run.files import sha256_of
from ondevice.run.recipe import AdapterParent, BaseRecipe, Recipe

__all__ = ["base_recipe", "build_for"]

_BLOCK = 1 << 22  # bytes
_BEGINS = "until the first checkpoint is written"
_ADAPTS = "its adapter means nothing without it"
_RESTORES = "for the tokens that its trimmed vocabulary left out are there alone"


def base_recipe(base: HuggingFaceModel) -> BaseRecipe:
    """What a recipe remembers of the model that a run begins with."""
    return BaseRecipe(path=str(base.folder), family=base.family, sha256=_hash_of(base))


def build_for(recipe: Recipe, *, fresh: bool, to_learn: bool = False, vocabulary: Vocabulary | None = None) -> Decoder:
    """The model of a recipe; ``fresh`` has the weights that a run begins with, else those that learn are to be loaded.
    It is fp32, or ``to_learn`` as the recipe keeps its weights.

    Where the recipe trims the vocabulary, the model has the rows of the ``vocabulary`` given, as it trains; without it
    the model is whole, and has the base's rows wherever the run's own are not loaded.

    Raises CheckpointError where the base is needed and is gone, or is another one than the recipe's.
    """
    whole = recipe.adapter is None
    begins = fresh and recipe.base is None
    form = "fp32" if recipe.adapter is None else recipe.adapter.base_format
    shape = recipe.model if vocabulary is None else recipe.trained
    if form == "fp32":
        model = build_model(shape, seed=recipe.train.seed if begins else None, init=recipe.train.init)
    else:
        give_back_large_blocks()
        model = build_frozen(shape, form)
    model.vocabulary = vocabulary
    restores = recipe.vocabulary is not None and vocabulary is None
    if recipe.base is not None and (fresh or not whole or restores):
        _load(model, recipe.base, why=_ADAPTS if not whole else _RESTORES if restores else _BEGINS)
    if recipe.adapter is not None:
        parent = recipe.adapter.parent if fresh else None
        add_lora(model, recipe.adapter, seed=recipe.train.seed if fresh and parent is None else None)
        if parent is not None:
            _begin_with(model, parent)
    if recipe.train.top_layers is not None:
        freeze_below(model, recipe.train.top_layers)
    if to_learn and is_narrow(recipe.train.optimizer_state):
        narrow(model)
    return model


@torch.no_grad()
def _load(model: Decoder, recipe: BaseRecipe, *, why: str) -> None:
    """Copies the base's weights into a model of its shape, or its rows of a trimmed vocabulary, piece by piece."""
    folder = Path(recipe.path)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: the model that this run begins with is gone; put it back there, {why}.")
    base = open_hugging_face(folder, context=model.shape.context)
    if _hash_of(base) != recipe.sha256:
        raise CheckpointError(f"{folder}: its weights are not those that this run was planned with; put them back.")
    for name, first, part in base.tensors():
        if model.vocabulary is not None and name in TABLES:
            first, part = model.vocabulary.part(first, part)
        if len(part):
            fill(model, name, first, part)
    seal(model)
    give_back_memory()


def _begin_with(model: Decoder, parent: AdapterParent) -> None:
    """Copies an adapter's matrices into a model that has their places."""
    path = Path(parent.path) / TENSORS
    if not path.is_file():
        raise CheckpointError(
            f"{parent.path}: the adapter that this run begins with is gone; put it back there, until the first "
            "checkpoint is written and the baseline, where there is one, is scored."
        )
    if sha256_of(path) != parent.sha256:
        raise CheckpointError(f"{path}: is not the adapter that this run was planned with; put that one back.")
    load_adapter(model, open_peft(path.parent, model.shape))


def _hash_of(base: HuggingFaceModel) -> str:
    """SHA-256 over the files of the weights, in order of their names."""
    whole = hashlib.sha256()
    for path in sorted(base.weights.files):
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                whole.update(block)
    return whole.hexdigest()
