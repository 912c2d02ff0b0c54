"""Opens what a person names (a run, one of its checkpoints, an export folder) as a backend with its tokenizer."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ondevice.data.tokenizer import Tokenizer, load_tokenizer
from ondevice.errors import CheckpointError, UsageError
from ondevice.infer.backend import BatchBackend
from ondevice.infer.export_folder import BUNDLE_FILE, EXPORT_FILE
from ondevice.run.directory import RunDir, find_run
from ondevice.run.store import Checkpoint, Store
from ondevice.run.telemetry import read_records

if TYPE_CHECKING:
    from ondevice.model.decoder import Decoder

_FOR_OTHERS = ("model.gguf", "genai_config.json")
_HUGGING_FACE = ("config.json", "adapter_config.json")

__all__ = ["Opened", "choose_checkpoint", "load_adapted", "load_decoder", "open_checkpoint", "open_target", "step_of"]


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A model ready to generate. ``what`` says for people what was opened; ``settings`` is the folder in
    which a recommended ``generation_config.json`` may lie."""

    backend: BatchBackend
    tokenizer: Tokenizer
    what: str
    settings: Path


def open_target(
    target: str, *, step: int | None = None, threads: int | None = None, adapter: Path | None = None
) -> Opened:
    """A run's name or path (its best checkpoint by validation loss unless ``step`` is given), the folder of a
    checkpoint, a release bundle, an export folder (through onnxruntime), or a folder of Hugging Face or PEFT, the first
    with an ``adapter`` of the second kind merged in.

    Raises UsageError for something else, CheckpointError for damage, DeviceError when a package is missing.
    """
    path = Path(os.path.expanduser(target))
    if adapter is not None and not (path / "config.json").is_file():
        raise UsageError(f"{target}: an adapter goes beside a folder of Hugging Face (config.json); name its base.")
    if (path / BUNDLE_FILE).is_file():
        inside = open_target(str(path / "native"), step=step, threads=threads)
        return replace(inside, what=f"{path}, {inside.what.removeprefix('native ')}")
    whole = (path / EXPORT_FILE).is_file() or path.parent.name == "checkpoints"
    if step is not None and whole:
        raise UsageError(f"{path}: is one checkpoint already; leave --step out, or name the run.")
    if (path / EXPORT_FILE).is_file():
        from ondevice.infer.onnx_backend import OnnxBackend

        return Opened(
            backend=OnnxBackend(path, threads=threads),
            tokenizer=load_tokenizer(path),
            what=f"{path} (onnxruntime)",
            settings=path,
        )
    if (path / "manifest.json").is_file() and path.parent.name == "checkpoints":
        run, step = RunDir(path.absolute().parent.parent), step_of(path)
    elif any((path / name).is_file() for name in _FOR_OTHERS):
        raise UsageError(f"{path}: an export for other programs; name the run, or an export made with --format onnx.")
    elif any((path / name).is_file() for name in _HUGGING_FACE):
        return _open_folder(path, step=step, threads=threads, adapter=adapter)
    else:
        run = find_run(target)
    chosen, why = choose_checkpoint(run, step)
    return open_checkpoint(run, chosen, why=why, threads=threads)


def _open_folder(path: Path, *, step: int | None, threads: int | None, adapter: Path | None) -> Opened:
    import torch

    from ondevice.infer.open_foreign import open_folder

    if step is not None:
        raise UsageError(f"{path}: is one model already; leave --step out, or name the run.")
    if threads is not None:
        torch.set_num_threads(threads)
    opened = open_folder(path, adapter=adapter)
    beside = adapter or (path if path != opened.base else None)
    what = f"{opened.base} with {beside}" if beside else str(path)
    return Opened(backend=opened.backend, tokenizer=opened.tokenizer, what=what, settings=path)


def step_of(path: Path) -> int:
    """The step of the folder of a checkpoint. Raises UsageError for another folder."""
    digits = path.name.removeprefix("step-")
    if not digits.isdigit():
        raise UsageError(f"{path}: not a checkpoint folder (step-...).")
    return int(digits)


def choose_checkpoint(run: RunDir, step: int | None = None) -> tuple[Checkpoint, str]:
    """The checkpoint of ``step``, or the best by validation loss that is kept, else the newest; and why."""
    store = Store(run.checkpoints)
    if step is not None:
        if step not in store.steps():
            known = ", ".join(map(str, store.steps())) or "none yet"
            raise CheckpointError(f"{run.name}: no checkpoint of step {step}; there are: {known}.")
        return store.open(step), "asked for"
    for candidate, why in _by_validation_loss(run, store.steps()):
        try:
            return store.open(candidate), why
        except CheckpointError:
            continue
    checkpoint, damage = store.latest()
    if checkpoint is None:
        reason = damage[0] if damage else "it has not saved yet; ask it with `ondevice save`"
        raise CheckpointError(f"{run.name}: no checkpoint to use: {reason}.")
    return checkpoint, "the newest"


def _by_validation_loss(run: RunDir, kept: list[int]) -> list[tuple[int, str]]:
    """Kept steps with their validation loss, best first; a step measured twice counts as last measured."""
    losses: dict[int, float] = {}
    for record in read_records(run.telemetry):
        if record["kind"] == "eval" and record.get("val_loss_mixed") is not None:
            losses[int(record["step"])] = float(record["val_loss_mixed"])
    ranked = sorted((loss, step) for step, loss in losses.items() if step in kept)
    return [(step, f"lowest validation loss of those kept, {loss:.4f}") for loss, step in ranked]


def load_decoder(run: RunDir, checkpoint: Checkpoint) -> Decoder:
    """The model of a checkpoint, an adapter merged in, in evaluation mode."""
    from ondevice.model.lora import merge

    model = load_adapted(run, checkpoint)
    merge(model)
    return model


def load_adapted(run: RunDir, checkpoint: Checkpoint) -> Decoder:
    """The model of a checkpoint as it was trained, an adapter beside its matrices, in evaluation mode. Of a trimmed
    vocabulary it is the whole model again: the rows that were left out are those of the base, to the bit."""
    from ondevice.model.restore import load_whole

    return load_whole(run, checkpoint).eval()


def open_checkpoint(run: RunDir, checkpoint: Checkpoint, *, why: str = "", threads: int | None = None) -> Opened:
    """A checkpoint through torch."""
    import torch

    from ondevice.infer.torch_backend import TorchBackend

    if threads is not None:
        torch.set_num_threads(threads)
    return Opened(
        backend=TorchBackend(load_decoder(run, checkpoint)),
        tokenizer=load_tokenizer(run.tokenizer),
        what=f"{run.name} step {checkpoint.step} ({why})" if why else f"{run.name} step {checkpoint.step}",
        settings=run.evals,
    )
