"""A chain's plan: what follows for a recipe from training in parts. No torch; cutting is ``ondevice.data.parts``'s."""

from __future__ import annotations

import dataclasses
import os

from ondevice.data.cursor import BatchCursor, grid_of
from ondevice.data.dataset import Dataset
from ondevice.data.mixture import Blend
from ondevice.data.parts import StageText, plan_parts
from ondevice.data.stages import stage_members
from ondevice.errors import UsageError
from ondevice.run.recipe import PartRecipe, Recipe
from ondevice.run.schedule import SETTLED, Schedule, ends_of
from ondevice.run.schema import Config

__all__ = ["chained", "cut", "stalled", "with_parts"]

_TAKES = "a chain's length follows from its parts"


def chained(config: Config) -> Config:
    """The config of a chain with the length that follows from it; any other config as it is.

    Raises UsageError for a length that was given beside the parts, or an order that has no parts.
    """
    folders = any(os.path.isdir(source.path) for source in config.data.sources)
    if config.chain.grow and not (config.chain.parts and folders):
        raise UsageError("'chain.grow' is for a chain (chain.parts) that learns from a folder; leave it out.")
    if not config.chain.parts:
        return config
    for key in ("tokens", "steps", "epochs"):
        if getattr(config.train, key) is not None:
            raise UsageError(
                f"'train.{key}': {_TAKES}; leave it out, and take chain.safety or data.max_unique_tokens for more or "
                "less."
            )
    if config.budget.minutes is not None:
        raise UsageError(f"'budget.minutes': {_TAKES}; leave it out, and train some parts at a time with --parts N.")
    if config.data.order == "curriculum":
        raise UsageError(
            "data.order = 'curriculum' ranks windows over the whole text, and the parts of a chain are read one after "
            "the other; take staged with easier and harder groups, or leave chain.parts out."
        )
    if config.data.order not in ("proportional", "staged", "sequential", "alphabetical", "shuffled"):
        raise UsageError(f"data.order = '{config.data.order}' repeats sources, which parts do not; take proportional.")
    return dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=config.chain.safety))


def cut(config: Config, dataset: Dataset, *, context: int, batch: int) -> tuple[PartRecipe, ...]:
    """The parts of a chain; none where the config has no chain. Raises UsageError, DataError."""
    if not config.chain.parts:
        return ()
    grid = grid_of(dataset, context, config.data.seed, config.data.max_unique_tokens, order=config.data.order)
    windows = {entry.name: int(count) for entry, count in zip(dataset.sources, grid.windows, strict=True)}
    stages = _stages(config, dataset, windows)
    return plan_parts(stages, parts=config.chain.parts, batch=batch, safety=config.chain.safety)


def _stages(config: Config, dataset: Dataset, windows: dict[str, int]) -> list[StageText]:
    """The stages of the config; else a stage a source for the orders that go source by source; else one of all."""
    order = config.data.order
    if order == "staged":
        return _wished(config, dataset, windows)
    if order in ("sequential", "alphabetical"):
        names = [name for name, count in windows.items() if count]
        names = sorted(names, key=lambda name: (name.casefold(), name)) if order == "alphabetical" else names
        return [StageText(name=name, windows={name: windows[name]}) for name in names]
    return [StageText(name="all", windows=windows)]


def _wished(config: Config, dataset: Dataset, windows: dict[str, int]) -> list[StageText]:
    entries = dataset.sources
    blend = Blend(
        names=tuple(entry.name for entry in entries),
        weights=tuple(entry.weight for entry in entries),
        groups=tuple(entry.group for entry in entries),
    )
    members = stage_members(config.data.stages, blend)
    return [
        StageText(
            name=stage.name,
            windows={blend.names[index]: windows[blend.names[index]] for index in indices},
            parts=stage.parts,
            replay=stage.replay,
        )
        for stage, indices in zip(config.data.stages, members, strict=True)
    ]


def with_parts(recipe: Recipe, dataset: Dataset, parts: tuple[PartRecipe, ...]) -> Recipe:
    """The recipe of a chain: its parts, as many steps, an evaluation at each part's end, and the hash of its order."""
    batch, context = recipe.train.batch, recipe.model.context
    steps = recipe.train.start_step + sum(part.windows for part in parts) // batch
    data = dataclasses.replace(recipe.data, parts=parts, stages=())
    cursor = BatchCursor.of(dataset, data, context=context, batch=batch)
    own = steps - recipe.train.start_step
    train = dataclasses.replace(
        recipe.train,
        steps=steps,
        tokens=recipe.train.start_tokens + own * batch * context,
        tail_steps=min(recipe.train.tail_steps, own),
    )
    recipe = dataclasses.replace(recipe, train=train)
    ends = dict.fromkeys([recipe.train.start_step, *ends_of(parts, batch=batch, start=recipe.train.start_step)])
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(data, order_sha256=cursor.order_sha256),
        eval=dataclasses.replace(recipe.eval, steps=tuple(ends) if recipe.eval.steps else ()),
        sample=dataclasses.replace(recipe.sample, steps=tuple(step for step in recipe.sample.steps if step <= steps)),
    )


def stalled(schedule: Schedule, config: Config, *, step: int) -> str:
    """The stage that is to end because its validation loss did not fall over `chain.patience` parts; empty where none.

    Only of a stage with ``until = "plateau"`` of which parts still begin at ``step`` or later.
    """
    current = schedule.current
    if current is None or not any(
        part.stage == current.stage and part.first_step >= step and part.state not in SETTLED for part in schedule.parts
    ):
        return ""
    wished = next((stage for stage in config.data.stages if stage.name == current.stage), None)
    if wished is None or wished.until != "plateau":
        return ""
    losses = [
        part.results["stage_loss"]
        for part in schedule.parts
        if part.stage == current.stage and part.state == "done" and part.results.get("stage_loss") is not None
    ]
    patience = config.chain.patience
    if len(losses) <= patience or min(losses[-patience:]) < min(losses[:-patience]):
        return ""
    return current.stage
