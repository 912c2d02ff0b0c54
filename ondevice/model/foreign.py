"""Opens weights that anybody may have made, whatever they are called: by what the bytes are, never by the name.

A safetensors file, a torch file, a folder of Hugging Face with either (whole or in shards), one of our checkpoints or
runs. Gives names and mapped tensors; which model they belong to is the caller's business.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice.errors import CheckpointError
from ondevice.model.untrusted import opened, read_object, refuse_too_large, short
from ondevice.run.directory import RunDir
from ondevice.run.store import Store

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Weights", "open_weights"]

_WHOLE = ("model.safetensors", "pytorch_model.bin")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_MAX_INDEX = 10_000_000  # bytes
_MAX_SHARDS = 1000
_SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_STEP = re.compile(r"step-([0-9]{8,18})")
_LARGEST_START = 16
_OTHERS = {
    b"GGUF": "a GGUF file, which is quantized for llama.cpp",
    b"version https://": "a pointer of Git LFS; the weights themselves were not downloaded (`git lfs pull`)",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"<": "a page of the web, so the download went wrong",
    b"\x89HDF": "an HDF5 file of Keras",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights(Mapping[str, "Tensor"]):
    """Tensors by name, mapped: read from disk where they are touched. ``format`` is safetensors or torch, ``what``
    says for people what was opened, ``files`` are those that hold the tensors, ``maps`` are ours of them."""

    format: str
    what: str
    files: tuple[Path, ...]
    tensors: dict[str, Tensor]
    maps: tuple[mmap.mmap, ...] = ()

    def release(self) -> None:
        """Gives the pages that were read back to the system; touched again, they are read again. A tensor that was
        written to is as in the file again."""
        for mapped in self.maps:
            mapped.madvise(mmap.MADV_DONTNEED)

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def open_weights(path: Path, *, available_mb: float | None = None) -> Weights:
    """The weights at ``path``. ``available_mb`` is the memory they may take, in MiB; None does not ask.

    Every file must be a regular one inside the folder that was named: links are not followed. The tensors are mapped
    and stay valid while the files stay as they are. Raises CheckpointError, one sentence naming the file, ResourceError
    for more than that memory, DataError for a damaged run directory.
    """
    weights = _open_folder(path, available_mb) if os.path.isdir(path) else _open_file(path, available_mb)
    needed = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    refuse_too_large(needed, available_mb, where=str(path))
    return weights


def _open_file(path: Path, available_mb: float | None) -> Weights:
    form = _format_of(path)  # and only now torch, which takes seconds to import
    from ondevice.model.safetensors import open_file
    from ondevice.model.torch_file import open_torch_file

    what = f"a {form} file"
    if form == "torch":
        tensors = open_torch_file(path, available_mb=available_mb)
        return Weights(format=form, what=what, files=(path,), tensors=tensors)
    with open_file(path) as file:
        tensors = {name: file.tensor(name) for name in file.names}
        return Weights(format=form, what=what, files=(path,), tensors=tensors, maps=(file.mapped,))


def _format_of(path: Path) -> str:
    with opened(path) as file:
        start = file.read(_LARGEST_START)
    if start[:4] == b"PK\3\4" or (start[:1] == b"\x80" and start[8:9] != b"{"):
        return "torch"
    if start[8:9] == b"{":
        return "safetensors"
    for magic, what in _OTHERS.items():
        if start.startswith(magic):
            raise CheckpointError(f"{path}: is {what}.")
    raise CheckpointError(f"{path}: neither a safetensors nor a torch file.")


def _open_folder(folder: Path, available_mb: float | None) -> Weights:
    if os.path.lexists(folder / "run.json"):
        return _open_run(folder)
    step = _STEP.fullmatch(folder.absolute().name)
    if step and os.path.lexists(folder / "manifest.json"):
        return _open_checkpoint(Store(folder.absolute().parent), int(step[1]))
    for name in _WHOLE:
        if os.path.lexists(folder / name):
            weights = _open_file(folder / name, available_mb)
            return replace(weights, what=f"a folder with the {weights.format} file {name}")
    for name in _INDEXES:
        if os.path.lexists(folder / name):
            return _open_shards(folder, folder / name, available_mb)
    raise CheckpointError(f"{folder}: no weights in it ({', '.join(_WHOLE)}, {_INDEXES[0]} or a run's checkpoint).")


def _open_run(folder: Path) -> Weights:
    """The newest checkpoint that verifies."""
    run = RunDir(folder)
    run.read_identity()
    store = Store(run.checkpoints)
    checkpoint, damage = store.latest()
    if checkpoint is None:
        raise CheckpointError(f"{folder}: no checkpoint to read: {damage[0] if damage else 'it has not saved yet.'}")
    weights = _open_checkpoint(store, checkpoint.step)
    return replace(weights, what=f"a run of ours, its checkpoint of step {checkpoint.step}")


def _open_checkpoint(store: Store, step: int) -> Weights:
    """Verified to the byte, and leased until it is mapped: a file that is mapped may be pruned."""
    with store.lease(step) as checkpoint:
        weights = _open_file(checkpoint.path / "model.safetensors", None)
    return replace(weights, what=f"a checkpoint of ours, step {step}")


def _open_shards(folder: Path, index: Path, available_mb: float | None) -> Weights:
    places = _read_index(index)
    names = sorted(set(places.values()))
    if len(names) > _MAX_SHARDS:
        raise CheckpointError(f"{index}: names {len(names)} files, the limit is {_MAX_SHARDS}.")
    shards = {name: _open_file(folder / name, available_mb) for name in names}
    tensors: dict[str, Tensor] = {}
    for name, place in places.items():
        if name not in shards[place]:
            raise CheckpointError(f"{folder / place}: has no tensor {short(name)}, which {index.name} puts there.")
        tensors[name] = shards[place][name]
    _refuse_unlisted(folder, index, places, shards)
    formats = {shard.format for shard in shards.values()}
    if len(formats) != 1:
        raise CheckpointError(f"{index}: names files of different formats, or none.")
    form = formats.pop()
    what = f"a folder of {len(shards)} {form} file{'s' if len(shards) > 1 else ''}"
    files = tuple(folder / name for name in names)
    maps = tuple(mapped for shard in shards.values() for mapped in shard.maps)
    return Weights(format=form, what=what, files=files, tensors=tensors, maps=maps)


def _refuse_unlisted(folder: Path, index: Path, places: Mapping[str, str], shards: Mapping[str, Weights]) -> None:
    for place, shard in shards.items():
        for name in shard:
            if places.get(name) != place:
                raise CheckpointError(f"{folder / place}: has a tensor {short(name)} that {index.name} does not list.")


def _read_index(path: Path) -> dict[str, str]:
    """Tensor name -> file name, each a plain name in the same folder. Raises CheckpointError."""
    refusal = "not an index of weights, it has no weight_map."
    places = read_object(path, at_most=_MAX_INDEX, refusal=refusal).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{path}: {refusal}")
    for name, place in places.items():
        if not isinstance(place, str) or not _SHARD.fullmatch(place):
            raise CheckpointError(f"{path}: puts {short(name)} into {short(place)}, which is no file of this folder.")
    return places
