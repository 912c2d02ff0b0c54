"""A model as a Hugging Face folder, which transformers loads without any code of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ondevice.data.chat import end_ids
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import OndeviceError
from ondevice.export.hf_tokenizer import write_hf_tokenizer
from ondevice.export.place import check_place, folder_in_place
from ondevice.infer.generation_config import GENERATION_CONFIG
from ondevice.model import safetensors
from ondevice.model.hugging_face import open_hugging_face
from ondevice.model.names import hugging_face_config, to_hugging_face
from ondevice.run.files import HashedFile, write_atomic, write_json
from ondevice.run.recipe import ModelShape

__all__ = ["export_hugging_face"]

CONFIG, INDEX, CARD = "config.json", "model.safetensors.index.json", "README.md"
SHARD_BYTES = 2_000_000_000
_SAMPLING = {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.95}


@torch.no_grad()
def export_hugging_face(
    shape: ModelShape,
    state: Mapping[str, Tensor],
    folder: Path,
    *,
    tokenizer: Tokenizer,
    card: str,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, int]:
    """Writes the folder and gives the bytes of each file. ``state`` has our names; ``card`` is its README.

    Raises UsageError when the folder exists, CheckpointError for wrong weights, ResourceError for a full disk,
    OndeviceError for a tokenizer that would not be the same there; in each case nothing is left behind.
    """
    check_place(folder, marker=CONFIG, overwrite=overwrite)
    tensors = to_hugging_face(shape, state)
    with folder_in_place(folder, need_bytes=sum(map(_size, tensors.values()))) as temporary:
        write_hf_tokenizer(tokenizer, temporary, context=shape.context)
        _write_weights(temporary, tensors, shard_bytes)
        ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eot_id)
        write_json(temporary / CONFIG, {**hugging_face_config(shape), **ends})
        stops = sorted(end_ids(tokenizer)) if tokenizer.chat is not None else [tokenizer.eot_id]
        write_json(
            temporary / GENERATION_CONFIG, {**_SAMPLING, **ends, "eos_token_id": stops if stops[1:] else stops[0]}
        )
        write_atomic(temporary / CARD, card.encode())
        _read_back(temporary, shape)
        return {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _write_weights(folder: Path, tensors: Mapping[str, Tensor], shard_bytes: int) -> None:
    shards = list(_shards(tensors, shard_bytes))
    if len(shards) == 1:
        _write(folder / "model.safetensors", shards[0])
        return
    places: dict[str, str] = {}
    for index, shard in enumerate(shards, start=1):
        name = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        _write(folder / name, shard)
        places |= dict.fromkeys(shard, name)
    total = sum(map(_size, tensors.values()))
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})


def _shards(tensors: Mapping[str, Tensor], most: int) -> Iterator[dict[str, Tensor]]:
    """Tensors in their order, cut where a file would grow beyond ``most`` bytes."""
    shard: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if shard and sum(map(_size, shard.values())) + _size(tensor) > most:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    file = HashedFile(path)
    try:
        safetensors.write(file, tensors, {"format": "pt"})
    except BaseException:
        file.close(durable=False)
        raise
    file.close()


def _read_back(folder: Path, shape: ModelShape) -> None:
    """Raises OndeviceError unless our own import sees the model that was written."""

    def essence(each: ModelShape) -> dict[str, Any]:
        return {key: value for key, value in vars(each).items() if key != "dropout"}

    if essence(open_hugging_face(folder).shape) != essence(shape):
        raise OndeviceError(
            f"{folder.name}: the written config does not describe the model; this is a fault of ondevice, please "
            "report it with the model's shape."
        )
