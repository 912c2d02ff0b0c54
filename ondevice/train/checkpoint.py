"""State <-> bytes: freezes a `TrainState`, writes it into a store's draft and reads it back, bit for bit.

``model.safetensors`` and ``optimizer.safetensors`` hold tensors, ``state.json`` the rest. Where a run averages, the
model is the average, and the weights in training are ``live.`` tensors beside the optimizer's. Written by the trainer
only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
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
from ondevice.train.averaging import WeightAverage
from ondevice.train.compiler import compiler_version
from ondevice.train.optimizer import Optimizer, load_state, state_tensors
from ondevice.train.state import TrainState, capture_rng, restore_rng

__all__ = [
    "STATE_VERSION",
    "Frozen",
    "exactness_facts",
    "freeze",
    "load_tensors",
    "load_training",
    "tensor_bytes",
    "write",
]

STATE_VERSION = 2
_LIVE = "live."


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Everything a checkpoint will hold. Unless ``copied`` the tensors are those in training: write it at once."""

    step: int
    model: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    body: dict[str, Any]
    facts: dict[str, Any]
    model_metadata: dict[str, str]
    optimizer_metadata: dict[str, str]
    copied: bool


def freeze(
    state: TrainState,
    *,
    recipe: Recipe,
    fit: Fit,
    launch: int,
    previous: Mapping[str, Any] | None = None,
    telemetry: Mapping[str, Any] | None = None,
    copied: bool = False,
) -> Frozen:
    """The state between two steps. ``previous`` names the checkpoint before it (``step``, ``sha256``), ``telemetry``
    is how far the story goes (`TelemetryWriter.position`). ``copied`` lets training go on while it is written."""
    model, optimizer = _model_tensors(state), _training_tensors(state)
    if copied:
        model = {name: tensor.detach().clone() for name, tensor in model.items()}
        optimizer = {name: tensor.detach().clone() for name, tensor in optimizer.items()}
    return Frozen(
        step=state.step,
        model=model,
        optimizer=optimizer,
        body=_body(state, recipe),
        facts={
            **_facts(recipe, fit, launch),
            "exposure": state.cursor.exposure(),
            "previous": None if previous is None else dict(previous),
            "telemetry": None if telemetry is None else dict(telemetry),
        },
        model_metadata={"recipe": recipe.sha256},
        optimizer_metadata={"format": recipe.train.optimizer_state},
        copied=copied,
    )


def write(store: Store, frozen: Frozen) -> Checkpoint:
    """Commits a frozen state as the checkpoint of its step. Raises ResourceError, leaving the old ones."""
    with store.draft(frozen.step) as draft:
        with draft.file("model.safetensors") as file:
            safetensors.write(file, frozen.model, frozen.model_metadata)
        with draft.file("optimizer.safetensors") as file:
            safetensors.write(file, frozen.optimizer, frozen.optimizer_metadata)
        with draft.file("state.json") as file:
            file.write(json.dumps(frozen.body, allow_nan=False).encode())
        return draft.commit(frozen.facts)


def tensor_bytes(state: TrainState) -> int:
    """Bytes of every tensor that a checkpoint of this state holds."""
    tensors = [*_model_tensors(state).values(), *_training_tensors(state).values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _model_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    averaged = {} if state.average is None else state.average.tensors
    return {name: averaged.get(name, parameter.detach()) for name, parameter in state.model.named_parameters()}


def _training_tensors(state: TrainState) -> dict[str, torch.Tensor]:
    """What only training needs: the optimizer's state, and its weights where those of the model file are averaged."""
    live = {} if state.average is None else state.average.live
    return state_tensors(state.model, state.optimizer) | {_LIVE + name: tensor for name, tensor in live.items()}


def _body(state: TrainState, recipe: Recipe) -> dict[str, Any]:
    return {
        "v": STATE_VERSION,
        "step": state.step,
        "tokens": state.tokens,
        "train_s": state.train_s,
        "best_loss": state.best_loss,
        "best_step": state.best_step,
        "losses": sorted([step, loss] for step, loss in state.losses.items()),
        "evaluated": list(state.evaluated),
        "sampled": list(state.sampled),
        "adviser": state.adviser.state_dict(),
        "cursor": state.cursor.state_dict(),
        "rng": capture_rng(),
        "recipe": recipe.to_json(),
    }


def _facts(recipe: Recipe, fit: Fit, launch: int) -> dict[str, Any]:
    return {
        "recipe_sha256": recipe.sha256,
        "fit": fit.to_json(),
        "launch": launch,
        "code_version": ondevice.__version__,
        **exactness_facts(recipe),
    }


def exactness_facts(recipe: Recipe) -> dict[str, Any]:
    """What must be equal for a resumed run to be equal to the bit."""
    return {
        "torch_version": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        **({"compiler": compiler_version()} if recipe.train.compile else {}),
    }


def load_tensors(
    checkpoint: Checkpoint, model: Decoder, optimizer: Optimizer | None, average: WeightAverage | None = None
) -> None:
    """Restores weights and, unless it is None, the optimizer's state with the weights in training, where the file's
    are averaged. An ``average`` begins with the file's. Raises CheckpointError."""
    load_weights(checkpoint.path / "model.safetensors", model)
    if average is not None:
        average.restart()
    if optimizer is not None:
        with safetensors.open_file(checkpoint.path / "optimizer.safetensors") as file:
            tensors = {name: file.tensor(name) for name in file.names if not name.startswith(_LIVE)}
            load_state(model, optimizer, tensors)
            _load_live(file, model)


def _load_live(file: safetensors.SafeFile, model: Decoder) -> None:
    own = {_LIVE + name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = {name for name in file.names if name.startswith(_LIVE)}
    if not found:
        return
    if found != set(own) or any(tuple(file.shape(name)) != tuple(own[name].shape) for name in found):
        raise CheckpointError(f"{file.path}: its live weights are not this model's; restore the file from a copy.")
    with torch.no_grad():
        for name, parameter in own.items():
            file.copy_into(name, parameter)


def load_training(checkpoint: Checkpoint, state: TrainState, recipe: Recipe) -> None:
    """Restores weights, optimizer, cursor, counters and every random generator. Raises CheckpointError.

    A fork's first checkpoint may have no cursor: its data is read from the start.
    """
    if not checkpoint.complete:
        raise CheckpointError(f"{checkpoint.path}: has no optimizer state, training cannot go on from it.")
    if not recipe.made(checkpoint.facts.get("recipe_sha256")):
        raise CheckpointError(f"{checkpoint.path}: was made by another recipe than this run's recipe.json.")
    raw = read_json(checkpoint.path / "state.json")
    if raw.get("v") not in (1, STATE_VERSION):
        raise CheckpointError(f"{checkpoint.path}: state version {raw.get('v')}, this program reads {STATE_VERSION}.")
    load_tensors(checkpoint, state.model, state.optimizer, state.average)
    if raw["cursor"] is not None:
        state.cursor.load_state_dict(raw["cursor"])
    state.step, state.tokens, state.train_s = raw["step"], raw["tokens"], raw["train_s"]
    state.best_loss, state.best_step, state.losses = raw["best_loss"], raw["best_step"], _losses(raw)
    state.evaluated, state.sampled = raw["evaluated"], raw["sampled"]
    state.adviser.load_state_dict(raw.get("adviser", {}))  # older checkpoints have none
    restore_rng(raw["rng"])


def _losses(raw: dict[str, Any]) -> dict[int, float]:
    """Version 1 knew the best saved step alone, and the best loss, which may be of another step."""
    if raw["v"] == 1:
        return {} if raw["best_saved"] is None else {raw["best_saved"]: raw["best_loss"]}
    return dict(raw["losses"])
