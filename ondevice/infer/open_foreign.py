"""Opens a folder of Hugging Face, or a PEFT adapter beside its base, for generating; nothing of it was trained here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ondevice.data.tokenizer import Tokenizer, import_tokenizer
from ondevice.device.memory import machine_memory
from ondevice.errors import UsageError
from ondevice.infer.torch_backend import TorchBackend
from ondevice.model.build import build_model
from ondevice.model.decoder import Decoder
from ondevice.model.frozen_decoder import fill, seal
from ondevice.model.hugging_face import open_hugging_face
from ondevice.model.lora import add_lora, merge
from ondevice.model.peft import CONFIG, load_adapter, open_peft
from ondevice.model.untrusted import read_object
from ondevice.run.directory import home

__all__ = ["Folder", "open_folder"]

_MAX_CONFIG = 1_000_000  # bytes


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A model that was opened, and where its tokenizer and settings lie."""

    backend: TorchBackend
    tokenizer: Tokenizer
    base: Path


def open_folder(folder: Path, *, adapter: Path | None = None) -> Folder:
    """The model in a folder, with an adapter merged in. A folder may be the adapter itself, which names its base.

    Raises CheckpointError for what is no model, is damaged, or is an adapter for another base; ResourceError where it
    does not fit into memory; UsageError where the base is not here.
    """
    if not (folder / "config.json").exists() and (folder / CONFIG).exists():
        if adapter is not None:
            raise UsageError(f"{folder}: is an adapter itself; name its base and one adapter.")
        folder, adapter = _base_of(folder), folder
    model = _model(folder)
    if adapter is not None:
        tuned = open_peft(adapter, model.shape)
        add_lora(model, tuned.recipe, seed=None)
        load_adapter(model, tuned)
        merge(model)
    return Folder(backend=TorchBackend(model.eval()), tokenizer=import_tokenizer(folder), base=folder)


def _model(folder: Path) -> Decoder:
    base = open_hugging_face(folder, available_mb=machine_memory().available_mb)
    model = build_model(base.shape, seed=None)
    for name, first, part in base.tensors():
        fill(model, name, first, part)
    seal(model)
    return model


def _base_of(adapter: Path) -> Path:
    """The folder of the base that an adapter names: a path, or a model that was fetched by `ondevice pull`."""
    raw = read_object(adapter / CONFIG, at_most=_MAX_CONFIG, refusal="not a LoRA adapter of PEFT.")
    name = raw.get("base_model_name_or_path")
    for folder in (Path(name), home() / "models" / name.replace("/", "--")) if isinstance(name, str) and name else ():
        if (folder / "config.json").is_file():
            return folder
    raise UsageError(
        f"{adapter}: its base, {name!r}, is not here; name its folder: `ondevice generate BASE --adapter {adapter}`."
    )
