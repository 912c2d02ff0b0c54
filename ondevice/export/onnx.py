"""The export folder: ``model.onnx`` (and its data), tokenizer files, ``parity.json``, and last ``export.json``.

The folder is built beside its place and renamed, so it is whole or absent. ``export.json`` names every other file with
size and SHA-256 and carries the lineage its caller gives; ``ondevice.infer.onnx_backend`` reads it.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.export.graph import WrittenFile
from ondevice.export.onnx_format import ir_version
from ondevice.export.place import check_place, folder_in_place
from ondevice.export.trial import Bench, Trial, graphs_for
from ondevice.export.verify import LogitsFn, Parity
from ondevice.infer.export_folder import EXPORT_FILE, EXPORT_VERSION, PARITY_FILE, PORTABLE, ExportFolder
from ondevice.infer.onnx_session import OLDEST
from ondevice.run.files import sha256_of, write_json
from ondevice.run.recipe import ModelShape

__all__ = ["ExportInfo", "export_onnx"]


@dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """What was written, and what became of the plan that was chosen."""

    folder: Path
    files: tuple[WrittenFile, ...]
    parameters: int
    nodes: int
    trial: Trial

    @property
    def parity(self) -> Parity | None:
        """None when it could not be checked; ``unchecked`` then says why."""
        return self.trial.parity

    @property
    def unchecked(self) -> str:
        return self.trial.unchecked

    @property
    def bytes(self) -> int:
        return sum(each.bytes for each in self.files)


def export_onnx(
    shape: ModelShape,
    state: Mapping[str, Any],
    folder: Path,
    *,
    metadata: Mapping[str, Any],
    tokenizer: Callable[[Path], object] | Path | None = None,
    reference: LogitsFn | None = None,
    quantize: str = "fp32",
    form: str = PORTABLE,
    text: Sequence[np.ndarray] = (),
    threads: int = 1,
    external: bool | None = None,
    overwrite: bool = False,
) -> ExportInfo:
    """Writes an export folder, checked against ``reference`` before it appears.

    ``state`` maps the names of ARCHITECTURE.md to torch tensors or numpy arrays of any float type. ``metadata`` goes
    into ``export.json`` under ``lineage`` (run id, step, hashes). ``tokenizer`` is called with the folder to fill
    (`Tokenizer.save`), or is a file or folder to copy. ``reference(ids_BT) -> logits_BTV`` is the model itself, such as
    `TorchBackend.logits`. ``quantize`` is a plan's name or ``auto``, the smallest plan that costs at most
    `MOST_GROWTH` of perplexity on ``text``, windows of token ids. ``form`` is one of `FORMS`; the
    portable one is written where the installed onnxruntime does not run it rightly. ``external`` puts the weights into
    ``model.onnx.data``, which onnxruntime maps instead of reading; None does so above 64 MB.

    Raises UsageError when the folder exists (``overwrite`` replaces an earlier export, never another folder) and for
    ``auto`` without text, CheckpointError for wrong weights, ResourceError for a full disk, OndeviceError when the
    parity check fails, DeviceError for ``auto`` without onnxruntime; in each case nothing is left behind.

    >>> export_onnx(decoder.shape, decoder.state_dict(), Path("exports/first"), metadata={"run": "notes", "step": 800},
    ...             tokenizer=tokenizer.save, reference=TorchBackend(decoder).logits, quantize="int4")
    """
    check_place(folder, marker=EXPORT_FILE, overwrite=overwrite)
    graphs = graphs_for(shape, state, quantize)
    wished = graphs_for(shape, state, quantize, form=form) if form != PORTABLE else []
    with folder_in_place(folder, need_bytes=max(graph.data_bytes for _, graph in graphs)) as temporary:
        bench = Bench(
            shape=shape,
            parameters=_parameters(state),
            reference=reference,
            text=text,
            threads=threads,
            external=external,
        )
        trial = bench.try_form(form, wished, graphs, temporary) if wished else bench.try_plans(graphs, temporary)
        files = [*trial.files, *_save_tokenizer(tokenizer, temporary)]
        write_json(temporary / PARITY_FILE, {"v": EXPORT_VERSION, **trial.to_json()})
        files.append(_written(temporary / PARITY_FILE, temporary))
        info = ExportInfo(
            folder=folder, files=tuple(files), parameters=bench.parameters, nodes=trial.nodes, trial=trial
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
        "v": ExportFolder.version(info.trial.form),
        "format": "onnx",
        "form": info.trial.form,
        "precision": info.trial.plan.name,
        "plan": dataclasses.asdict(info.trial.plan),
        "opset": info.trial.opset,
        "ir_version": ir_version(info.trial.opset),
        "onnxruntime": OLDEST[info.trial.form],
        "shape": dataclasses.asdict(shape),
        "parameters": info.parameters,
        "nodes": info.nodes,
        "files": {each.name: {"bytes": each.bytes, "sha256": each.sha256} for each in info.files},
        "lineage": dict(metadata),
    }
