"""Adapters in PEFT's file format, both ways: ``adapter_config.json`` beside ``adapter_model.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ondevice.errors import CheckpointError, UsageError, nearest
from ondevice.model import safetensors
from ondevice.model.decoder import Decoder
from ondevice.model.lora import lora_layers
from ondevice.model.targets import Target, chosen_targets, targets_of
from ondevice.model.untrusted import read_object, short
from ondevice.run.files import write_json
from ondevice.run.recipe import AdapterRecipe, ModelShape
from ondevice.run.telemetry import as_number

__all__ = ["CONFIG", "TENSORS", "Adapter", "load_adapter", "open_peft", "write_peft"]

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_MAX_CONFIG = 1_000_000  # bytes
_BASE_SHA256 = "base_sha256"  # of our own adapters, in the metadata of their tensors; PEFT does not look there
_GPT2 = {"attn.qkv": "attn.c_attn", "attn.out": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
_PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "modules_to_save": (None, []),
    "use_dora": (False,),
    "layers_to_transform": (None,),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "lora_bias": (False,),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    # Others subtract from the base what they begin with, or begin beside a quantized one of their own.
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
}


@dataclass(frozen=True, eq=False)
class Adapter:
    """An adapter that was opened. ``tensors`` are under our parameters' names; ``base_sha256`` is empty where who wrote
    it did not say."""

    recipe: AdapterRecipe
    tensors: dict[str, Tensor]
    base_sha256: str


def write_peft(folder: Path, model: Decoder, adapter: AdapterRecipe, *, base: str, base_sha256: str = "") -> None:
    """Writes the adapter of ``model`` into a folder that exists; ``base`` is what PEFT looks for as its base model, and
    ``base_sha256`` what a recipe calls it."""
    tensors: dict[str, Tensor] = {}
    for block, layer in lora_layers(model):
        for target in layer.targets:
            name = _name(model.shape, block, target)
            for letter, matrix in zip("AB", layer.pair(target), strict=True):
                tensors[f"{name}.lora_{letter}.weight"] = matrix.detach().contiguous()
    told = {_BASE_SHA256: base_sha256} if base_sha256 else {}
    safetensors.write(folder / TENSORS, tensors, {"format": "pt", **told})
    write_json(folder / CONFIG, _config(model.shape, adapter, base))


def _config(shape: ModelShape, adapter: AdapterRecipe, base: str) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": sorted({target.name for target in chosen_targets(shape, adapter.targets)}),
        "use_rslora": adapter.rank_stabilized,
        "fan_in_fan_out": shape.arch == "gpt2",
        "bias": "none",
        "inference_mode": True,
    }


def _name(shape: ModelShape, block: int, target: Target) -> str:
    """PEFT's name of an adapted matrix."""
    if shape.arch == "gpt2":
        return f"base_model.model.transformer.h.{block}.{_GPT2[target.path]}"
    part = "self_attn" if target.path.startswith("attn") else "mlp"
    return f"base_model.model.model.layers.{block}.{part}.{target.name}"


def open_peft(folder: Path, shape: ModelShape) -> Adapter:
    """An adapter for a model of this shape. Raises CheckpointError for one of another model or another kind."""
    recipe = _recipe(folder / CONFIG, shape)
    path = folder / TENSORS
    if not path.exists():
        raise CheckpointError(f"{path}: not there; only adapters stored as safetensors are read.")
    with safetensors.open_file(path) as file:
        given, base_sha256 = {name: file.tensor(name) for name in file.names}, file.metadata.get(_BASE_SHA256, "")
    tensors = _ours(shape, recipe, given, path)
    for name, tensor in given.items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: {short(name)} has values that are no finite numbers; take an intact copy.")
    return Adapter(recipe=recipe, tensors=tensors, base_sha256=base_sha256)


def _recipe(path: Path, shape: ModelShape) -> AdapterRecipe:
    if not path.exists():
        raise CheckpointError(f"{path}: not there, so {path.parent.name} is no adapter.")
    raw = read_object(path, at_most=_MAX_CONFIG, refusal="not a LoRA adapter of PEFT.")
    if raw.get("peft_type") != "LORA":
        raise CheckpointError(f"{path}: not a LoRA adapter of PEFT.")
    for key, allowed in _PLAIN.items():
        if raw.get(key, allowed[0]) not in allowed:
            raise CheckpointError(f"{path}: '{key}' is {raw[key]!r}, which is not supported.")
    rank, alpha, dropout = raw.get("r"), as_number(raw.get("lora_alpha")), as_number(raw.get("lora_dropout", 0.0))
    sound = type(rank) is int and 0 < rank < 10_000 and alpha is not None and alpha > 0
    if not sound or dropout is None or not 0 <= dropout < 1:
        raise CheckpointError(
            f"{path}: rank {short(str(rank))}, alpha {short(str(alpha))} are no numbers of an adapter."
        )
    return AdapterRecipe(
        rank=int(raw["r"]),
        alpha=float(raw["lora_alpha"]),
        dropout=dropout,
        targets=_targets(raw.get("target_modules"), path, shape),
        rank_stabilized=bool(raw.get("use_rslora", False)),
    )


def _targets(names: Any, path: Path, shape: ModelShape) -> tuple[str, ...]:
    if names == "all-linear":
        return tuple(target.name for target in targets_of(shape))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: 'target_modules' must be a list of names.")
    try:
        return tuple(target.name for target in chosen_targets(shape, tuple(names)))
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _ours(shape: ModelShape, recipe: AdapterRecipe, given: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    left, found = dict(given), dict[str, Tensor]()
    for block in range(shape.layers):
        for target in chosen_targets(shape, recipe.targets):
            for letter, size in (("A", (recipe.rank, target.columns)), ("B", (target.rows, recipe.rank))):
                name = f"{_name(shape, block, target)}.lora_{letter}.weight"
                tensor = left.pop(name, None)
                if tensor is None:
                    raise CheckpointError(f"{path}: tensor {name!r} is missing: an adapter for another model?")
                if tuple(tensor.shape) != size:
                    raise CheckpointError(f"{path}: {name!r} has shape {list(tensor.shape)}, not {list(size)}.")
                key = target.name.replace(".", "_")
                found[f"blocks.{block}.{target.path}.lora_{letter}.{key}"] = tensor
    if left:
        odd = sorted(left)[0]
        raise CheckpointError(f"{path}: tensor {short(odd)} has no place here{nearest(odd, given)}.")
    return found


@torch.no_grad()
def load_adapter(model: Decoder, adapter: Adapter) -> None:
    """Copies an adapter's tensors into a model that was given adapters of the same recipe."""
    own = dict(model.named_parameters())
    for name, tensor in adapter.tensors.items():
        own[name].copy_(tensor)
