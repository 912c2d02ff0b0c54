"""Weights out of a file of ``torch.save`` that anybody may have made: checked first, then mapped by torch.

Before torch sees the file, its zip (`stored_zip`) and its pickle (`state_pickle`) were read here and found to describe
plain tensors that their bytes account for; afterwards every tensor must be as described. Must not know models.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ondevice.errors import CheckpointError, ResourceError
from ondevice.model.state_pickle import ITEM_SIZES, MAX_PICKLE, TensorSpec, read_pickle
from ondevice.model.stored_zip import Member, check_sums, read_members
from ondevice.model.untrusted import opened, refuse_too_large, short

__all__ = ["open_torch_file"]

_STATE_KEYS = ("model", "state_dict", "model_state_dict", "module", "weights")
_SMALL_PART = 1 << 16  # bytes; of everything but the pickle and the tensors
_MAX_SHARING = 16  # how often the bytes of a file may be used; tied weights use theirs twice
_PLAIN = (Tensor, torch.nn.Parameter)


def open_torch_file(path: Path, *, available_mb: float | None = None) -> dict[str, Tensor]:
    """The tensors of a saved state dict by name, mapped: read from disk where they are touched. Writing to one does
    not change the file; the file must stay as it is while they live.

    A dict around the state dict (``{"model": ...}``) is taken off. ``available_mb`` is the memory that the weights
    may take, in MiB; None does not ask. Raises CheckpointError, one sentence naming the file and, where it can, the
    tensor; ResourceError when the weights are larger than that memory.
    """
    with opened(path) as file:
        where = str(path)
        _refuse_old_formats(file, where)
        members = _parts(read_members(file, where=where), where)
        saved, every = read_pickle(_read_part(file, members["data.pkl"], where), where=where)
        _check_byte_order(file, members, where)
        outer, state = _state_dict(saved, where)
        _check_tensors(every, state, members, where)
        _check_room(state, members, available_mb, where)
        check_sums(file, members, where=where)
        return _load(path, file, outer, state)


def _refuse_old_formats(file: BinaryIO, where: str) -> None:
    start = file.read(4)
    if start == b"PK\3\4":
        return
    if start[:1] == b"\x80":
        raise CheckpointError(
            f"{where}: a torch file of the old kind (before torch 1.6), which can only be run; if you trust its maker, "
            "load it with torch.load and write it again with torch.save."
        )
    raise CheckpointError(f"{where}: not a torch file: it does not begin as a zip does.")


def _parts(members: dict[str, Member], where: str) -> dict[str, Member]:
    """The members without the folder that torch puts them into. All but pickle and tensors must be small."""
    folders = {name.partition("/")[0] for name in members}
    parts = {name.partition("/")[2]: member for name, member in members.items()}
    if len(folders) != 1 or "data.pkl" not in parts:
        raise CheckpointError(f"{where}: a zip, but not one that torch.save made.")
    if "constants.pkl" in parts:
        raise CheckpointError(f"{where}: a TorchScript program, not weights; save its state_dict() instead.")
    for name, member in parts.items():
        if member.size > (MAX_PICKLE if name == "data.pkl" else _SMALL_PART) and not name.startswith("data/"):
            raise CheckpointError(f"{where}: its part {name!r} has {member.size} bytes, more than torch.save writes.")
    return parts


def _read_part(file: BinaryIO, member: Member, where: str) -> bytes:
    file.seek(member.start)
    data = file.read(member.size)
    if len(data) != member.size:
        raise CheckpointError(f"{where}: the file became shorter while it was read.")
    return data


def _check_byte_order(file: BinaryIO, members: Mapping[str, Member], where: str) -> None:
    """torch would swap the bytes of every tensor in memory; no machine that we know of needs that."""
    if "byteorder" in members and _read_part(file, members["byteorder"], where) != sys.byteorder.encode():
        raise CheckpointError(
            f"{where}: was written by a machine of another byte order; save it again on one like this."
        )


def _state_dict(saved: Any, where: str) -> tuple[str | None, dict[str, TensorSpec]]:
    """The key under which the state dict was found (None: it is the whole), and its tensors."""
    if not isinstance(saved, dict):
        raise CheckpointError(f"{where}: holds one {_kind(saved)}, not a dict of named tensors.")
    inner = {key: value for key, value in saved.items() if isinstance(value, dict) and _is_state_dict(value)}
    keys = [key for key in _STATE_KEYS if key in inner]
    if not keys and any(isinstance(value, TensorSpec) for value in saved.values()):
        return None, _only_tensors(saved, where)
    keys = keys or [key for key in inner if type(key) is str]
    if len(keys) != 1:
        found = f"several ({', '.join(short(key) for key in keys[:5])})" if keys else "none"
        raise CheckpointError(
            f"{where}: wanted a dict of named tensors, alone or under one key such as 'model', and found {found}; save "
            "it again with torch.save(model.state_dict(), FILE)."
        )
    return keys[0], inner[keys[0]]


def _is_state_dict(value: dict[Any, Any]) -> bool:
    return bool(value) and all(type(name) is str and isinstance(tensor, TensorSpec) for name, tensor in value.items())


def _only_tensors(saved: dict[Any, Any], where: str) -> dict[str, TensorSpec]:
    for name, value in saved.items():
        if type(name) is not str or not isinstance(value, TensorSpec):
            raise CheckpointError(f"{where}: {short(name)} is no tensor but stands among tensors ({_kind(value)}).")
    return saved


def _kind(value: Any) -> str:
    return "tensor" if isinstance(value, TensorSpec) else type(value).__name__.lstrip("_").lower()


def _check_tensors(
    every: list[TensorSpec], state: Mapping[str, TensorSpec], members: Mapping[str, Member], where: str
) -> None:
    """Each tensor, used or not, since torch makes them all, must be accounted for by the bytes of its storage."""
    names = {id(spec): f"tensor {short(name)}" for name, spec in state.items()}
    for spec in every:
        problem = _problem(spec, members)
        if problem:
            raise CheckpointError(f"{where}: {names.get(id(spec), 'a tensor beside the weights')} {problem}.")


def _problem(spec: TensorSpec, members: Mapping[str, Member]) -> str | None:
    """What is wrong with a tensor, as the end of a sentence."""
    member = members.get(f"data/{spec.storage.key}")
    if member is None or member.size != spec.storage.bytes:
        has = "has no bytes in it" if member is None else f"has {member.size} bytes in it"
        return f"{has} where its storage needs {spec.storage.bytes}"
    item = ITEM_SIZES[spec.dtype]
    if member.size and member.start % item:
        return "is not aligned in it; save it again with torch.save"
    count = math.prod(spec.shape)
    if max(count, math.prod(size for size in spec.shape if size)) * item >= 2**63:
        return "has an absurd shape"
    if not count:
        return None if spec.offset * item <= member.size else "lies outside its storage"
    if (_reach(spec) + spec.offset) * item > member.size:
        return f"wants more than the {member.size} bytes of its storage"
    return None if _is_plain(spec) else "uses the same bytes for several of its elements"


def _reach(spec: TensorSpec) -> int:
    """Elements of the storage from the first of the tensor to its last."""
    return 1 + sum((size - 1) * stride for size, stride in zip(spec.shape, spec.stride, strict=True))


def _is_plain(spec: TensorSpec) -> bool:
    """Whether no element lies on another: every dimension steps over all that the finer ones reach."""
    reach = 0
    for stride, size in sorted(
        (stride, size) for size, stride in zip(spec.shape, spec.stride, strict=True) if size > 1
    ):
        if stride <= reach:
            return False
        reach += (size - 1) * stride
    return True


def _check_room(
    state: Mapping[str, TensorSpec], members: Mapping[str, Member], available_mb: float | None, where: str
) -> None:
    """What the weights take when each name has its own, against what the file has and the machine can give."""
    needed = sum(math.prod(spec.shape) * ITEM_SIZES[spec.dtype] for spec in state.values())
    held = sum(member.size for member in members.values())
    if needed > held * _MAX_SHARING:
        raise CheckpointError(f"{where}: its {held} bytes would unfold to {needed}; no model shares that much.")
    refuse_too_large(needed, available_mb, where=where)


def _load(path: Path, file: BinaryIO, outer: str | None, state: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    try:
        saved = torch.load(_same_file(path, file), map_location="cpu", weights_only=True, mmap=True)
    except MemoryError as error:
        raise ResourceError(f"{path}: there is no memory to map it.") from error
    except Exception as error:  # whatever torch raises at a file that passed, it is the file's fault
        reason = str(error).strip().partition("\n")[0][:160]
        raise CheckpointError(f"{path}: torch does not read it ({reason or type(error).__name__}).") from error
    found = saved if outer is None else saved[outer]
    return {name: _as_described(path, name, found[name], spec) for name, spec in state.items()}


def _same_file(path: Path, file: BinaryIO) -> str:
    """A name under which torch opens the very file that was checked, even if ``path`` leads elsewhere by now."""
    door = f"/proc/self/fd/{file.fileno()}"
    return door if os.path.exists(door) else str(path)


def _as_described(path: Path, name: str, tensor: Any, spec: TensorSpec) -> Tensor:
    """The tensor without its gradient flag. Raises CheckpointError where torch made something else of the file."""
    same = (
        type(tensor) in _PLAIN
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not (tensor.is_conj() or tensor.is_neg())
        and tensor.dtype is getattr(torch, spec.dtype)
        and (tuple(tensor.shape), tensor.stride(), tensor.storage_offset()) == (spec.shape, spec.stride, spec.offset)
        and tensor.untyped_storage().nbytes() == spec.storage.bytes
    )
    if not same:
        raise CheckpointError(f"{path}: tensor {short(name)} is not what the file describes.")
    plain: Tensor = tensor.detach()
    return plain
