"""What is evaluated: a checkpoint of a run that is not training, or an export; with the dataset of its run if here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.data.dataset import Dataset
from ondevice.data.parcel import open_dataset
from ondevice.data.tokenizer import Tokenizer, load_tokenizer
from ondevice.errors import CheckpointError, DataError, OndeviceError, UsageError
from ondevice.infer.backend import BatchBackend
from ondevice.infer.export_folder import EXPORT_FILE
from ondevice.infer.open import choose_checkpoint, load_decoder
from ondevice.model.decoder import Decoder
from ondevice.run.directory import RunDir, find_run
from ondevice.run.files import sha256_of
from ondevice.run.recipe import ModelShape
from ondevice.run.store import Store

__all__ = ["Target", "open_run_step", "open_target"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model ready to be measured. ``identity`` is the hash of its weights' manifest, ``evals`` where results go,
    ``settings`` where its generation config does; without ``dataset``, ``no_dataset`` says why."""

    name: str
    step: int | None
    identity: str
    backend: BatchBackend
    shape: ModelShape
    model: Decoder | None
    tokenizer: Tokenizer
    dataset: Dataset | None
    no_dataset: str
    evals: Path
    settings: Path
    why: str = ""


@contextmanager
def open_target(target: str, *, step: int | None = None, threads: int | None = None) -> Iterator[Target]:
    """A run's name or path, the folder of a checkpoint, or an export folder. A checkpoint is leased while it is open.

    Raises UsageError, CheckpointError, DataError, DeviceError.
    """
    path = Path(os.path.expanduser(target))
    single = (path / EXPORT_FILE).is_file() or (path.parent.name == "checkpoints" and path.is_dir())
    if step is not None and single:
        raise UsageError(f"{path}: is one model already; leave --step out, or name the run.")
    if (path / EXPORT_FILE).is_file():
        yield _export(path.absolute(), threads)
        return
    why = ""
    if single:
        run, digits = RunDir(path.absolute().parent.parent), path.name.removeprefix("step-")
        if not digits.isdigit():
            raise UsageError(f"{path}: not a checkpoint folder (step-...).")
        step = int(digits)
    else:
        run = find_run(target)
        chosen, why = choose_checkpoint(run, step)
        step = chosen.step
    with open_run_step(run, step, threads=threads, why=why) as opened:
        yield opened


@contextmanager
def open_run_step(
    run: RunDir, step: int, *, threads: int | None = None, why: str = "", dataset: Dataset | None = None
) -> Iterator[Target]:
    """A checkpoint of a run, leased while it is open; ``dataset`` saves opening it again."""
    from ondevice.infer.torch_backend import TorchBackend

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with Store(run.checkpoints).lease(step) as checkpoint:
        model = load_decoder(run, checkpoint)
        found, reason = (dataset, "") if dataset is not None else _dataset(run)
        yield Target(
            name=run.name,
            step=step,
            identity=checkpoint.sha256,
            backend=TorchBackend(model),
            shape=model.shape,
            model=model,
            tokenizer=load_tokenizer(run.tokenizer),
            dataset=found,
            no_dataset=reason,
            evals=run.evals,
            settings=run.evals,
            why=why,
        )


def _dataset(run: RunDir) -> tuple[Dataset | None, str]:
    try:
        return open_dataset(run.read_recipe().data), ""
    except DataError as error:
        return None, str(error)


def _export(folder: Path, threads: int | None) -> Target:
    from ondevice.infer.onnx_backend import OnnxBackend

    backend = OnnxBackend(folder, threads=threads, verify=True)
    dataset, reason = _dataset_of_lineage(backend.export.lineage)
    step = backend.export.lineage.get("step")
    inside = folder.parent.name == "exports" and (folder.parent.parent / "run.json").is_file()
    return Target(
        name=folder.name,
        step=step if type(step) is int else None,
        identity=sha256_of(folder / EXPORT_FILE),
        backend=backend,
        shape=backend.export.shape,
        model=None,
        tokenizer=load_tokenizer(folder),
        dataset=dataset,
        no_dataset=reason,
        evals=RunDir(folder.parent.parent).evals if inside else folder / "evals",
        settings=folder,
    )


def _dataset_of_lineage(lineage: dict[str, Any]) -> tuple[Dataset | None, str]:
    """The dataset of the run an export was made of, where that run is here and is still the same."""
    name = lineage.get("run")
    try:
        run = find_run(name) if isinstance(name, str) else None
        if run is None or run.read_identity().get("id") != lineage.get("run_id"):
            return None, "The run this export was made of is not here, and with it the text to measure it on."
        return _dataset(run)
    except (OndeviceError, OSError) as error:
        if isinstance(error, CheckpointError):
            return None, str(error)
        return None, "The run this export was made of is not here, and with it the text to measure it on."
