"""A folder of Hugging Face as what is evaluated: read by our own importer, computed by our own decoder on torch."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from ondevice.data.tokenizer import Tokenizer, import_tokenizer
from ondevice.device.memory import give_back_memory, machine_memory
from ondevice.errors import CheckpointError, DataError
from ondevice.model.base import base_recipe
from ondevice.model.decoder import Decoder
from ondevice.model.hugging_face import HuggingFaceModel, open_hugging_face

__all__ = ["LONGEST", "open_foreign"]

LONGEST = 1024  # tokens at once, where not asked for otherwise: what a long context costs grows with its square


def open_foreign(folder: Path, *, context: int | None) -> tuple[Decoder, Tokenizer, str]:
    """The model in evaluation mode, its tokenizer, and a hash of weights, config, tokenizer and context.

    Raises CheckpointError for a folder that is none or whose parts do not belong together, DataError for its
    tokenizer, UsageError for a context it has not, ResourceError where it does not fit into memory.
    """
    available_mb = _available_mb()
    opened = open_hugging_face(folder, context=context, available_mb=available_mb)
    if context is None and opened.longest > LONGEST:
        opened = open_hugging_face(folder, context=LONGEST, available_mb=available_mb)
    tokenizer = import_tokenizer(folder)
    if tokenizer.vocab_size > opened.shape.vocab_size:
        raise CheckpointError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size:,} ids and its model {opened.shape.vocab_size:,}; the "
            "files are not of one model."
        )
    return _decoder(opened), tokenizer, _identity(opened, tokenizer)


def _decoder(opened: HuggingFaceModel) -> Decoder:
    import torch

    from ondevice.model.build import build_model
    from ondevice.model.frozen_decoder import fill, seal

    model = build_model(opened.shape, seed=None)
    with torch.no_grad():
        for name, first, part in opened.tensors():
            fill(model, name, first, part)
        seal(model)
    give_back_memory()
    return model.eval()


def _identity(opened: HuggingFaceModel, tokenizer: Tokenizer) -> str:
    try:
        config = (opened.folder / "config.json").read_bytes()
    except OSError as error:
        raise DataError(f"{opened.folder}: config.json cannot be read ({error.strerror}).") from error
    parts: list[Any] = [base_recipe(opened).sha256, hashlib.sha256(config).hexdigest(), tokenizer.sha256]
    return hashlib.sha256("\n".join([*parts, str(opened.shape.context)]).encode()).hexdigest()


def _available_mb() -> float | None:
    with suppress(OSError, LookupError, ImportError):
        return machine_memory().available_mb
    return None
