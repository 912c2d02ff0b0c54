"""What is evaluated: a checkpoint of a run that is not training, an export, or a folder of Hugging Face.

With the dataset of its run if here, or the one that was named; under another tokenizer its text is encoded again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ondevice.data.dataset import Dataset
from ondevice.data.parcel import named_dataset, open_dataset
from ondevice.data.tokenizer import Tokenizer, load_tokenizer
from ondevice.errors import CheckpointError, DataError, OndeviceError, UsageError
from ondevice.evaluate.losses import ValidationText
from ondevice.infer.backend import BatchBackend
from ondevice.infer.export_folder import BUNDLE_FILE, EXPORT_FILE
from ondevice.infer.open import choose_checkpoint, load_decoder, step_of
from ondevice.model.decoder import Decoder
from ondevice.run.directory import RunDir, find_run
from ondevice.run.files import sha256_of
from ondevice.run.recipe import ModelShape
from ondevice.run.store import Store
from ondevice.study.retokenised import Retokenised

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

    @property
    def own_tokens(self) -> bool:
        """Whether the dataset's ids are the model's."""
        return self.dataset is not None and self.dataset.tokenizer().sha256 == self.tokenizer.sha256

    @property
    def validation(self) -> ValidationText | None:
        """What losses are measured on, in the model's own ids."""
        if self.dataset is None or self.own_tokens:
            return self.dataset
        return Retokenised(self.dataset, self.tokenizer)


@contextmanager
def open_target(
    target: str,
    *,
    step: int | None = None,
    threads: int | None = None,
    data: str | None = None,
    context: int | None = None,
) -> Iterator[Target]:
    """A run's name or path, the folder of a checkpoint, a release bundle, an export, or a folder of Hugging Face.

    A checkpoint is leased while it is open. ``data`` names the dataset to measure on instead of the run's; ``context``
    how many tokens a model of Hugging Face sees at once. Raises UsageError, CheckpointError, DataError, DeviceError,
    ResourceError.
    """
    path = Path(os.path.expanduser(target))
    if (path / BUNDLE_FILE).is_file():
        path = path / "native"
        target = str(path)
    kind = _kind(path)
    if step is not None and kind != "run":
        raise UsageError(f"{path}: is one model already; leave --step out, or name the run.")
    if context is not None and kind != "hugging face":
        raise UsageError(f"{target}: --context is for a folder of Hugging Face; what was trained here has its own.")
    dataset = None if data is None else named_dataset(data)
    if kind == "onnx":
        yield _with(_export(path.absolute(), threads), dataset)
    elif kind == "hugging face":
        yield _with(_hugging_face(path.absolute(), threads, context), dataset)
    else:
        run, step, why = _checkpoint(path, target, step, single=kind == "checkpoint")
        with open_run_step(run, step, threads=threads, why=why, dataset=dataset) as opened:
            yield opened


def _kind(path: Path) -> str:
    if (path / EXPORT_FILE).is_file():
        return "onnx"
    if path.parent.name == "checkpoints" and path.is_dir():
        return "checkpoint"
    if (path / "config.json").is_file() and not (path / "run.json").exists():
        return "hugging face"
    return "run"


def _checkpoint(path: Path, target: str, step: int | None, *, single: bool) -> tuple[RunDir, int, str]:
    """The run, the step, and why it was chosen."""
    if not single:
        run = find_run(target)
        chosen, why = choose_checkpoint(run, step)
        return run, chosen.step, why
    return RunDir(path.absolute().parent.parent), step_of(path), ""


def _with(target: Target, dataset: Dataset | None) -> Target:
    return target if dataset is None else replace(target, dataset=dataset, no_dataset="")


@contextmanager
def open_run_step(
    run: RunDir, step: int, *, threads: int | None = None, why: str = "", dataset: Dataset | None = None
) -> Iterator[Target]:
    """A checkpoint of a run, leased while it is open; ``dataset`` saves opening it again."""
    from ondevice.infer.torch_backend import TorchBackend

    _use_threads(threads)
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


def _hugging_face(folder: Path, threads: int | None, context: int | None) -> Target:
    from ondevice.infer.torch_backend import TorchBackend
    from ondevice.study.foreign_target import open_foreign

    _use_threads(threads)
    model, tokenizer, identity = open_foreign(folder, context=context)
    run = RunDir(folder.parent.parent)
    inside = folder.parent.name == "exports" and (run.path / "run.json").is_file()
    dataset, reason = _dataset(run) if inside else (None, f"{folder.name} does not say; name a dataset with --data.")
    return Target(
        name=folder.name,
        step=None,
        identity=identity,
        backend=TorchBackend(model),
        shape=model.shape,
        model=model,
        tokenizer=tokenizer,
        dataset=dataset,
        no_dataset=reason,
        evals=run.evals if inside else folder / "evals",
        settings=folder,
    )


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


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
