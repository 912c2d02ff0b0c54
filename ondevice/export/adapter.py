"""The adapter of a checkpoint as a folder that PEFT loads; the base model stays where it is."""

from __future__ import annotations

from pathlib import Path

from ondevice.errors import UsageError
from ondevice.export.place import check_place, folder_in_place
from ondevice.model.base import build_for
from ondevice.model.peft import CONFIG, write_peft
from ondevice.model.weights import load_weights
from ondevice.run.recipe import Recipe
from ondevice.run.store import Checkpoint

__all__ = ["export_adapter"]


def export_adapter(recipe: Recipe, checkpoint: Checkpoint, folder: Path, *, overwrite: bool = False) -> dict[str, int]:
    """Writes the adapter and gives the bytes of each file. Raises UsageError for a run without one, CheckpointError,
    ResourceError."""
    if recipe.adapter is None or recipe.base is None:
        raise UsageError("This run trained every weight, so it has no adapter; export it without --format peft.")
    check_place(folder, marker=CONFIG, overwrite=overwrite)
    model = build_for(recipe, fresh=False)
    load_weights(checkpoint.path / "model.safetensors", model)
    need_bytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    with folder_in_place(folder, need_bytes=need_bytes) as temporary:
        write_peft(temporary, model, recipe.adapter, base=recipe.base.path, base_sha256=recipe.base.sha256)
        return {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
