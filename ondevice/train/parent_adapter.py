"""The adapter that a run begins with (``model.adapter``), opened and compared with what the config wishes for.

Rank, alpha and targets are the adapter's own; dropout and the format of the base are how this run trains, so they stay
the config's. Knows nothing of where its matrices go: ``ondevice.model.base`` puts them into the model.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ondevice.errors import CheckpointError, DataError, UsageError
from ondevice.model.peft import CONFIG, TENSORS, open_peft
from ondevice.model.targets import chosen_targets
from ondevice.run.files import sha256_of
from ondevice.run.recipe import AdapterParent, AdapterRecipe, ModelShape, Recipe
from ondevice.run.schema import Config

__all__ = ["OpenedParent", "open_parent"]

_PACKED = "adapter"  # where a package of ours holds it


@dataclass(frozen=True, kw_only=True)
class OpenedParent:
    """An adapter that fits the shape of the base. ``base_sha256`` is empty where who wrote it did not say."""

    recipe: AdapterRecipe
    parent: AdapterParent
    base_sha256: str

    def applied_to(self, config: Config) -> Config:
        """The config with what the adapter brings along."""
        own = {key: getattr(self.recipe, key) for key in ("rank", "alpha", "targets", "rank_stabilized")}
        return dataclasses.replace(config, adapter=dataclasses.replace(config.adapter, **own))

    def recorded_in(self, recipe: Recipe) -> Recipe:
        """The recipe, which remembers the adapter. Raises CheckpointError where it was made beside another base."""
        assert recipe.adapter is not None and recipe.base is not None
        if self.base_sha256 and self.base_sha256 != recipe.base.sha256:
            raise CheckpointError(
                f"{self.parent.path}: an adapter for another base than {recipe.base.path} (its weights have another "
                "hash); name that one with model.base."
            )
        unknown = "" if self.base_sha256 else "; which base it was made beside it does not say, names and shapes fit"
        brought = f"rank {self.recipe.rank}, alpha {self.recipe.alpha:g} and targets"
        told = f"{brought} are those of {self.parent.path}{unknown}"
        adapter = dataclasses.replace(recipe.adapter, parent=self.parent)
        return dataclasses.replace(recipe, adapter=adapter, why={**recipe.why, "model.adapter": told})


def open_parent(config: Config, shape: ModelShape) -> OpenedParent | None:
    """The adapter that a config begins with; None where it wishes for none.

    Raises UsageError where the config wishes for another adapter than there is, DataError where there is none,
    CheckpointError where it is damaged or belongs to a model of other names or shapes.
    """
    if not config.model.adapter:
        return None
    if not config.model.base:
        raise UsageError("model.adapter means nothing without its base: name that with model.base.")
    if config.adapter.method != "lora":
        raise UsageError("model.adapter goes on with an adapter: add adapter.method = 'lora', or leave it out.")
    folder = _folder(Path(config.model.adapter))
    opened = open_peft(folder, shape)
    _refuse_other_wishes(config, opened.recipe, shape)
    return OpenedParent(
        recipe=opened.recipe,
        parent=AdapterParent(path=str(folder), sha256=sha256_of(folder / TENSORS)),
        base_sha256=opened.base_sha256,
    )


def _folder(folder: Path) -> Path:
    """Where the adapter lies: the folder itself, or that of the adapter in a package."""
    for place in (folder, folder / _PACKED):
        if (place / CONFIG).is_file():
            return place
    raise DataError(
        f"{folder}: no adapter there; model.adapter names a folder with {CONFIG} and {TENSORS}, as `ondevice export "
        "RUN --format peft` writes it."
    )


def _refuse_other_wishes(config: Config, there: AdapterRecipe, shape: ModelShape) -> None:
    wish = config.adapter
    targets = tuple(target.name for target in chosen_targets(shape, wish.targets)) if wish.targets else None
    wishes = {"rank": wish.rank, "alpha": wish.alpha, "targets": targets, "rank_stabilized": wish.rank_stabilized}
    for key, wished in wishes.items():
        if wished is not None and wished != getattr(there, key):
            own = getattr(there, key)
            raise UsageError(
                f"adapter.{key} is {_told(wished)}, but the adapter of model.adapter has {_told(own)}; leave it out."
            )


def _told(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower()
