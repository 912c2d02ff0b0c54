"""Changes of a chain's plan while it is trained: parts skipped, left out, reordered or added, as a new recipe revision.

Only what no checkpoint has read may change, so a trainer goes on from any checkpoint as before. No torch; the caller
holds the run's lock. Writing it down is the business of ``ondevice.run.revision``.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from ondevice.data.build import build_beside
from ondevice.data.cursor import grid_of
from ondevice.data.dataset import Dataset
from ondevice.data.parcel import open_dataset
from ondevice.data.parts import StageText, plan_parts
from ondevice.errors import DataError, UsageError, nearest
from ondevice.run.config import read_wish, to_toml
from ondevice.run.directory import RunDir
from ondevice.run.recipe import RECIPE_VERSION, PartRecipe, Recipe
from ondevice.run.revision import complete, newest_config, revise
from ondevice.run.schedule import FILE, Schedule, chain_recipe, ends_of, schedule_of, write_schedule
from ondevice.run.schema import Config, SourceConfig, TokenizerConfig
from ondevice.run.store import Store
from ondevice.run.telemetry import read_records
from ondevice.run.vocabulary import read_kept
from ondevice.train.chain_plan import with_parts
from ondevice.train.fork_config import named_apart
from ondevice.train.order import data_recipe
from ondevice.train.schedule import anchored
from ondevice.train.vocabulary import refuse_others

__all__ = ["add_text", "append", "chain_of", "drop_stage", "newest_wish", "reorder", "skip_part"]

Progress = Callable[[int, int, str], None]


def chain_of(run: RunDir) -> Recipe:
    """The recipe of a chain, a revision that a crash interrupted finished. Raises UsageError for a run without parts,
    DataError."""
    complete(run)
    return chain_recipe(run)


def skip_part(run: RunDir, why: str) -> PartRecipe:
    """Leaves out what no checkpoint has of the first part that is not done; gives that part as it was."""
    recipe = chain_of(run)
    current = schedule_of(recipe, read_records(run.telemetry)).current
    if current is None:
        raise UsageError(f"{run.name}: every part is done, there is nothing to skip.")
    part = recipe.data.parts[current.index]
    steps = max(0, min(_reached(run, recipe), current.last_step) - current.first_step)
    cut = dataclasses.replace(part, windows=steps * recipe.train.batch, skipped=why)
    parts = tuple(cut if each is part else each for each in recipe.data.parts)
    _put(run, recipe, parts, f"part {part.name} skipped: {why}")
    return part


def drop_stage(run: RunDir, stage: str, why: str) -> int:
    """Leaves out the parts of a stage that are not begun; gives how many."""
    recipe = chain_of(run)
    begun, rest = _split(run, recipe)
    dropped = [dataclasses.replace(part, windows=0, skipped=why) for part in rest if part.stage == stage]
    if not dropped:
        return 0
    parts = (*begun, *dropped, *(part for part in rest if part.stage != stage))
    _put(run, recipe, parts, f"the rest of stage '{stage}' left out: {why}")
    return len(dropped)


def reorder(run: RunDir, names: Sequence[str]) -> tuple[str, ...]:
    """Trains the named parts next and in this order, then the others as they stood; gives the names of what is to
    come. Raises UsageError for a part that is not there, named twice, or begun."""
    recipe = chain_of(run)
    begun, rest = _split(run, recipe)
    waiting = {part.name: part for part in rest}
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"part {name}: named twice; name it once.")
        if name in (part.name for part in begun):
            raise UsageError(f"part {name}: is done or begun already; only parts that are not begun can change places.")
        if name not in waiting:
            raise UsageError(f"part {name}: no such part{nearest(name, waiting)}; `ondevice schedule show {run.name}`.")
    chosen = tuple(waiting.pop(name) for name in names)
    after = (*chosen, *waiting.values())
    if after != rest:
        _put(run, recipe, (*begun, *after), f"reordered: {', '.join(names)} next")
    return tuple(part.name for part in after)


def add_text(
    run: RunDir,
    sources: Sequence[SourceConfig],
    *,
    parts: int | None = None,
    stage: str = "",
    progress: Progress | None = None,
) -> tuple[PartRecipe, ...]:
    """Appends parts of new text, tokenised in the run's own vocabulary beside the old text; gives them.

    ``parts`` None: about as long as those there are. Raises UsageError, DataError.
    """
    recipe = chain_of(run)
    config = newest_wish(run)
    named = named_apart(sources, config.data.sources, recipe)
    data = dataclasses.replace(config.data, sources=named)
    both = build_beside(open_dataset(recipe.data), data, base=Path.cwd(), progress=progress)
    if both is None:
        raise DataError("The new text has nothing that the run has not read already; add other text.")
    return append(run, both, named, parts=parts, stage=stage)


def newest_wish(run: RunDir) -> Config:
    """The config that belongs to the newest revision. Raises UsageError, DataError."""
    return read_wish(newest_config(run))


def append(
    run: RunDir, dataset: Dataset, named: Sequence[SourceConfig], *, parts: int | None = None, stage: str = ""
) -> tuple[PartRecipe, ...]:
    """Makes a revision of the recipe with parts of the sources that ``dataset`` has beside the old ones, which
    ``named`` declares; gives the parts. Raises DataError, ResourceError."""
    recipe, config = chain_of(run), newest_wish(run)
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, sources=(*config.data.sources, *named)),
        tokenizer=TokenizerConfig(path=str(run.tokenizer)),
    )
    data = dataclasses.replace(
        data_recipe(config, dataset), parts=recipe.data.parts, order=recipe.data.order, seed=recipe.data.seed
    )
    if data.tokenizer_sha256 != recipe.data.tokenizer_sha256:
        raise DataError(f"{run.tokenizer}: not the run's vocabulary; `ondevice verify {run.name}` says more.")
    if (kept := read_kept(run, recipe)) is not None:
        refuse_others(dataset, kept)
    planned = _planned(recipe, dataset, parts, stage)
    whole = (*recipe.data.parts, *planned)
    why = f"{len(planned)} parts added: {', '.join(source.name or source.path for source in named)}"
    _put(run, dataclasses.replace(recipe, data=data), whole, why, dataset=dataset, config_toml=to_toml(config))
    return planned


def _planned(recipe: Recipe, dataset: Dataset, parts: int | None, stage: str) -> tuple[PartRecipe, ...]:
    """The parts of the sources that the recipe does not know."""
    grid = grid_of(dataset, recipe.model.context, recipe.data.seed, None, order=recipe.data.order)
    windows = {
        entry.name: int(count)
        for entry, count in zip(dataset.sources, grid.windows, strict=True)
        if entry.name not in recipe.data.weights
    }
    if not sum(windows.values()):
        raise DataError("The new text is too short for one window; add more of it.")
    before, batch = recipe.data.parts, recipe.train.batch
    usual = max(1, sum(part.windows for part in before) // max(1, sum(part.windows > 0 for part in before)))
    count = parts or max(1, round(sum(windows.values()) / usual))
    text = StageText(name=stage or next(iter(windows)), windows=windows, parts=count)
    found = plan_parts([text], parts=count, batch=batch, safety=1.0)
    taken = {part.name for part in before}
    free = (f"{number:03d}" for number in itertools.count(len(before) + 1))
    names = itertools.islice((name for name in free if name not in taken), count)
    return tuple(dataclasses.replace(part, name=name) for part, name in zip(found, names, strict=True))


def _reached(run: RunDir, recipe: Recipe) -> int:
    """The furthest step that a checkpoint has."""
    return max(Store(run.checkpoints).steps(), default=recipe.train.start_step)


def _split(run: RunDir, recipe: Recipe) -> tuple[tuple[PartRecipe, ...], tuple[PartRecipe, ...]]:
    """Parts that are begun, and those that are not."""
    parts, reached = recipe.data.parts, _reached(run, recipe)
    ends = ends_of(parts, batch=recipe.train.batch, start=recipe.train.start_step)
    firsts = [recipe.train.start_step, *ends][: len(ends)]
    fixed = [first < reached or bool(part.skipped) for part, first in zip(parts, firsts, strict=True)]
    count = fixed.index(False) if False in fixed else len(parts)
    later = [part for part in parts[count:] if part.skipped]  # zero steps long: their place means nothing
    return (*parts[:count], *later), tuple(part for part in parts[count:] if not part.skipped)


def _put(
    run: RunDir,
    recipe: Recipe,
    parts: tuple[PartRecipe, ...],
    why: str,
    *,
    dataset: Dataset | None = None,
    config_toml: str | None = None,
) -> None:
    before = run.read_recipe()
    changed = with_parts(recipe, dataset or open_dataset(recipe.data), parts)
    train = anchored(before.train, changed.train, reached=_reached(run, before))
    changed = dataclasses.replace(changed, train=train)
    number = len(before.revises) + 2
    revised = dataclasses.replace(
        changed,
        v=RECIPE_VERSION,
        revises=(*before.revises, before.sha256),
        why={**before.why, f"revision {number}": why},
    )
    revise(run, revised, config_toml=config_toml)
    _rewrite(run, schedule_of(revised, read_records(run.telemetry)))


def _rewrite(run: RunDir, schedule: Schedule) -> None:
    if (run.path / FILE).exists():
        write_schedule(run.path, schedule)
