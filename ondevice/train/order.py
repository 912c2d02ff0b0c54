"""The order of a recipe: which tokens of a dataset, by the wish, and the stages once the length of training is known.

No torch here: ``ondevice data order`` shows an order before anything is measured.
"""

from __future__ import annotations

import dataclasses

from ondevice.data.cursor import BatchCursor, grid_of
from ondevice.data.dataset import Dataset
from ondevice.data.mixture import Blend
from ondevice.data.order import Grid
from ondevice.data.stages import plan_stages
from ondevice.run.directory import home
from ondevice.run.recipe import CurriculumRecipe, DataRecipe, Recipe
from ondevice.run.schema import Config

__all__ = ["curriculum_recipe", "data_recipe", "staged", "with_order"]


def data_recipe(config: Config, dataset: Dataset) -> DataRecipe:
    """Which tokens, by the wish; its order is open until `with_order`."""
    return DataRecipe(
        dataset=dataset.folder.name if dataset.folder.parent == home() / "datasets" else str(dataset.folder),
        dataset_sha256=dataset.sha256,
        tokenizer_sha256=dataset.tokenizer().sha256,
        order=config.data.order,
        order_sha256="",
        seed=config.data.seed,
        weights={entry.name: entry.weight for entry in dataset.sources},
        train_tokens=sum(entry.train_tokens for entry in dataset.sources),
        max_unique_tokens=config.data.max_unique_tokens,
        temperature=config.data.temperature,
        groups={entry.name: entry.group for entry in dataset.sources if entry.group},
        curriculum=curriculum_recipe(config, dataset),
    )


def curriculum_recipe(config: Config, dataset: Dataset) -> CurriculumRecipe | None:
    """The curriculum that is wished for; None for another order."""
    wish = config.data.curriculum
    if config.data.order != "curriculum":
        return None
    return CurriculumRecipe(
        by=wish.by,
        direction=wish.direction,
        mixing=wish.mixing,
        afterwards=wish.afterwards,
        scores={entry.name: entry.score for entry in dataset.sources if entry.score is not None and wish.by == "score"},
    )


def with_order(recipe: Recipe, config: Config, dataset: Dataset) -> Recipe:
    """The recipe with the stages of the config and the hash of its order."""
    context, batch = recipe.model.context, recipe.train.batch
    windows = recipe.train.planned_steps * batch
    data = staged(recipe.data, config, dataset, context=context, windows=windows)
    cursor = BatchCursor.of(dataset, data, context=context, batch=batch)
    return dataclasses.replace(recipe, data=dataclasses.replace(data, order_sha256=cursor.order_sha256))


def staged(data: DataRecipe, config: Config, dataset: Dataset, *, context: int, windows: int) -> DataRecipe:
    """With the stages, or the curriculum, over ``windows`` windows where the order has them. Raises UsageError,
    DataError."""
    if data.curriculum is not None:
        total = _grid(data, dataset, context).total
        short = dataclasses.replace(data.curriculum, windows=windows if windows < total else None)
        return dataclasses.replace(data, curriculum=short)
    if data.order != "staged":
        return data
    names = tuple(entry.name for entry in dataset.sources)
    blend = Blend(
        names=names,
        weights=tuple(data.weights[name] for name in names),
        groups=tuple(data.groups.get(name, "") for name in names),
        temperature=data.temperature,
    )
    grid = _grid(data, dataset, context)
    return dataclasses.replace(data, stages=plan_stages(config.data.stages, blend, grid.windows, windows))


def _grid(data: DataRecipe, dataset: Dataset, context: int) -> Grid:
    return grid_of(dataset, context, data.seed, data.max_unique_tokens, order=data.order)
