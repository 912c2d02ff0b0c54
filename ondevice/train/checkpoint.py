"""State <-> bytes: writes a `TrainState` into a store's draft and reads it back, bit for bit.

``model.safetensors`` and ``optimizer.safetensors`` hold tensors, ``state.json`` the rest. Written by the trainer only.
"""

from __future__ import annotations

import json
from typing import Any

import torch

import ondevice
from ondevice.errors import CheckpointError
from ondevice.model import safetensors
from ondevice.model.decoder import Decoder
from ondevice.model.weights import load_weights
from ondevice.run.files import read_json
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.store import Checkpoint, Store
from ondevice.train.optimizer import load_state, state_tensors
from ondevice.train.state import TrainState, capture_rng, restore_rng

__all__ = ["STATE_VERSION", "exactness_facts", "load_training", "save"]

STATE_VERSION = 1


def save(store: Store, state: TrainState, *, recipe: Recipe, fit: Fit, launch: int) -> Checkpoint:
    """Commits the state as the checkpoint of its step. Raises ResourceError on a full disk, leaving the old ones."""
    body = {
        "v": STATE_VERSION,
        "step": state.step,
        "tokens": state.tokens,
        "train_s": state.train_s,
        "best_loss": state.best_loss,
        "best_step": state.best_step,
        "best_saved": state.best_saved,
        "evaluated": state.evaluated,
        "sampled": state.sampled,
        "cursor": state.cursor.state_dict(),
        "rng": capture_rng(),
    }
    with store.draft(state.step) as draft:
        with draft.file("model.safetensors") as file:
            safetensors.write(file, _model_tensors(state.model), {"recipe": recipe.sha256})
        with draft.file("optimizer.safetensors") as file:
            safetensors.write(
                file, state_tensors(state.model, state.optimizer), {"format": recipe.train.optimizer_state}
            )
        with draft.file("state.json") as file:
            file.write(json.dumps(body, allow_nan=False).encode())
        return draft.commit(_facts(recipe, fit, launch))


def _model_tensors(model: Decoder) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _facts(recipe: Recipe, fit: Fit, launch: int) -> dict[str, Any]:
    return {
        "recipe_sha256": recipe.sha256,
        "fit": fit.to_json(),
        "launch": launch,
        "code_version": ondevice.__version__,
        **exactness_facts(),
    }


def exactness_facts() -> dict[str, Any]:
    """What must be equal for a resumed run to be equal to the bit."""
    return {
        "torch_version": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def load_training(checkpoint: Checkpoint, state: TrainState, recipe: Recipe) -> None:
    """Restores weights, optimizer, cursor, counters and every random generator. Raises CheckpointError."""
    if checkpoint.facts.get("recipe_sha256") != recipe.sha256:
        raise CheckpointError(f"{checkpoint.path}: was made by another recipe than this run's recipe.json.")
    raw = read_json(checkpoint.path / "state.json")
    if raw.get("v") != STATE_VERSION:
        raise CheckpointError(f"{checkpoint.path}: state version {raw.get('v')}, this program reads {STATE_VERSION}.")
    load_weights(checkpoint.path / "model.safetensors", state.model)
    with safetensors.open_file(checkpoint.path / "optimizer.safetensors") as file:
        load_state(state.model, state.optimizer, {name: file.tensor(name) for name in file.names})
    state.cursor.load_state_dict(raw["cursor"])
    state.step, state.tokens, state.train_s = raw["step"], raw["tokens"], raw["train_s"]
    state.best_loss, state.best_step, state.best_saved = raw["best_loss"], raw["best_step"], raw["best_saved"]
    state.evaluated, state.sampled = raw["evaluated"], raw["sampled"]
    restore_rng(raw["rng"])
