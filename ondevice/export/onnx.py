"""The export folder: ``model.onnx`` (and its data), tokenizer files, ``parity.json``, and last ``export.json``.

The folder is built beside its place and renamed, so it is whole or absent. ``export.json`` names every other file with
size and SHA-256 and carries the lineage its caller gives; ``ondevice.infer.onnx_backend`` reads it.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import DeviceError, UsageError
from ondevice.export.graph import Graph, WrittenFile
from ondevice.export.graph_gpt2 import build_gpt2
from ondevice.export.graph_llama import build_llama
from ondevice.export.onnx_format import IR_VERSION, OPSET
from ondevice.export.place import check_place, folder_in_place
from ondevice.export.plan import FP32, Plan
from ondevice.export.verify import LogitsFn, Parity, verify_onnx
from ondevice.infer.export_folder import EXPORT_FILE, EXPORT_VERSION, PARITY_FILE
from ondevice.infer.onnx_session import OLDEST_ONNXRUNTIME
from ondevice.run.files import sha256_of, write_json
from ondevice.run.recipe import ModelShape

__all__ = ["ExportInfo", "build_graph", "export_onnx"]

_EXTERNAL_ABOVE = 64 << 20  # bytes: mapped weights need no copy in memory; protobuf itself ends at 2 GiB


@dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """What was written. ``parity`` is None when it could not be checked; ``unchecked`` then says why."""

    folder: Path
    files: tuple[WrittenFile, ...]
    parameters: int
    nodes: int
    parity: Parity | None
    unchecked: str = ""

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.files)


def build_graph(shape: ModelShape, state: Mapping[str, Any], plan: Plan = FP32) -> Graph:
    """The portable graph of a decoder, its matrices in the bits of a plan.

    Raises UsageError for an unknown architecture, CheckpointError for weights that do not fit the shape."""
    builders = {"gpt2": build_gpt2, "llama": build_llama}
    if shape.arch not in builders:
        raise UsageError(f"No ONNX graph for the architecture {shape.arch!r}; known: {', '.join(builders)}.")
    return builders[shape.arch](shape, state, plan)


def export_onnx(
    shape: ModelShape,
    state: Mapping[str, Any],
    folder: Path,
    *,
    metadata: Mapping[str, Any],
    tokenizer: Callable[[Path], object] | Path | None = None,
    reference: LogitsFn | None = None,
    external: bool | None = None,
    overwrite: bool = False,
) -> ExportInfo:
    """Writes an export folder, checked against ``reference`` before it appears.

    ``state`` maps the names of ARCHITECTURE.md to torch tensors or numpy arrays of any float type. ``metadata`` goes
    into ``export.json`` under ``lineage`` (run id, step, hashes). ``tokenizer`` is called with the folder to fill
    (`Tokenizer.save`), or is a file or folder to copy. ``reference(ids_BT) -> logits_BTV`` is the model itself, such as
    `TorchBackend.logits`. ``external`` puts the weights into ``model.onnx.data``, which onnxruntime maps instead of
    reading; None does so above 64 MB.

    Raises UsageError when the folder exists (``overwrite`` replaces an earlier export, never another folder),
    CheckpointError for wrong weights, ResourceError for a full disk, OndeviceError when the parity check fails; in
    each case nothing is left behind.

    >>> export_onnx(decoder.shape, decoder.state_dict(), Path("exports/first"), metadata={"run": "notes", "step": 800},
    ...             tokenizer=tokenizer.save, reference=TorchBackend(decoder).logits)
    """
    check_place(folder, marker=EXPORT_FILE, overwrite=overwrite)
    graph = build_graph(shape, state)
    outside = graph.data_bytes > _EXTERNAL_ABOVE if external is None else external
    with folder_in_place(folder, need_bytes=graph.data_bytes) as temporary:
        files = graph.save(temporary, external=outside, metadata={"arch": shape.arch})
        files += _save_tokenizer(tokenizer, temporary)
        parity, unchecked = _check(temporary, reference, shape)
        write_json(temporary / PARITY_FILE, _parity_json(parity, unchecked))
        files.append(_written(temporary / PARITY_FILE, temporary))
        info = ExportInfo(
            folder=folder,
            files=tuple(files),
            parameters=_parameters(state),
            nodes=graph.nodes,
            parity=parity,
            unchecked=unchecked,
        )
        write_json(temporary / EXPORT_FILE, _export_json(shape, info, metadata))
    return info


def _save_tokenizer(tokenizer: Callable[[Path], object] | Path | None, folder: Path) -> list[WrittenFile]:
    before = set(folder.rglob("*"))
    if isinstance(tokenizer, Path):
        if tokenizer.is_dir():
            shutil.copytree(tokenizer, folder, dirs_exist_ok=True)
        else:
            shutil.copy(tokenizer, folder)
    elif tokenizer is not None:
        tokenizer(folder)
    return [_written(path, folder) for path in sorted(set(folder.rglob("*")) - before) if path.is_file()]


def _written(path: Path, folder: Path) -> WrittenFile:
    """Makes a file that someone else wrote durable, and names it relative to the export."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return WrittenFile(name=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=sha256_of(path))


def _check(folder: Path, reference: LogitsFn | None, shape: ModelShape) -> tuple[Parity | None, str]:
    if reference is None:
        return None, "no reference model was given"
    try:
        return verify_onnx(folder, reference, shape=shape), ""
    except DeviceError as error:  # a phone without onnxruntime may still export for another machine
        return None, str(error)


def _parity_json(parity: Parity | None, unchecked: str) -> dict[str, Any]:
    if parity is None:
        return {"v": EXPORT_VERSION, "checked": False, "reason": unchecked}
    return {"v": EXPORT_VERSION, "checked": True, **parity.to_json()}


def _parameters(state: Mapping[str, Any]) -> int:
    total = 0
    for tensor in state.values():
        count = 1
        for dim in tensor.shape:
            count *= int(dim)
        total += count
    return total


def _export_json(shape: ModelShape, info: ExportInfo, metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "v": EXPORT_VERSION,
        "format": "onnx",
        "precision": "fp32",
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "onnxruntime": OLDEST_ONNXRUNTIME,
        "shape": dataclasses.asdict(shape),
        "parameters": info.parameters,
        "nodes": info.nodes,
        "files": {each.name: {"bytes": each.bytes, "sha256": each.sha256} for each in info.files},
        "lineage": dict(metadata),
    }
