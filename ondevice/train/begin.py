"""What a launch, a replay and a measured step begin with: torch as every launch sets it, and the state of a run."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch

from ondevice.data.cursor import BatchCursor
from ondevice.data.dataset import Dataset
from ondevice.device.memory import give_back_large_blocks
from ondevice.errors import DataError
from ondevice.model.base import build_for
from ondevice.model.vocabulary import Vocabulary
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.store import Checkpoint
from ondevice.train.averaging import average_of
from ondevice.train.checkpoint import load_training
from ondevice.train.optimizer import make_optimizer
from ondevice.train.state import TrainState

__all__ = ["make_state", "prepare_torch"]


def prepare_torch(fit: Fit, recipe: Recipe) -> None:
    """Threads and seeds, as every launch begins with them."""
    # Before the first parallel operation, or it covers one thread only.
    torch.set_flush_denormal(True)
    torch.set_num_threads(fit.threads)
    torch.manual_seed(recipe.train.seed)
    random.seed(recipe.train.seed)
    np.random.seed(recipe.train.seed % 2**32)


def make_state(
    recipe: Recipe, dataset: Dataset, fit: Fit, checkpoint: Checkpoint | None, *, kept: Sequence[int] | None = None
) -> TrainState:
    """The state of a checkpoint, or of a run that begins; ``kept``: the tokens of its trimmed vocabulary. Raises
    CheckpointError or DataError."""
    assert (recipe.vocabulary is None) == (kept is None)
    vocabulary = None if kept is None else Vocabulary(kept, recipe.model.vocab_size)
    model = build_for(recipe, fresh=checkpoint is None, to_learn=True, vocabulary=vocabulary)
    model.activation_checkpointing = fit.activation_checkpointing
    if fit.activation_checkpointing:  # memory is short
        give_back_large_blocks()
    cursor = BatchCursor.of(dataset, recipe.data, context=recipe.model.context, batch=recipe.train.batch)
    if cursor.order_sha256 != recipe.data.order_sha256:
        raise DataError(f"{dataset.folder}: gives another order than the recipe recorded; update ondevice back.")
    state = TrainState(
        model=model,
        optimizer=make_optimizer(model, recipe.train),
        cursor=cursor,
        average=average_of(model, recipe.train),
    )
    if checkpoint is not None:
        load_training(checkpoint, state, recipe)
    return state
