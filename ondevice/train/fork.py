"""A fork: a new run that starts from a checkpoint of another, with the optimizer kept and the schedule begun anew.

A recipe never changes, so every change of mind is a fork: more tokens, a decay-only tail, new text, another learning
rate. The child's identity records its parent with hashes (``ondevice.run.papers.lineage_of``). It is a run of its own:
the parent may be removed afterwards.
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.data.cursor import BatchCursor
from ondevice.data.dataset import Dataset
from ondevice.data.parcel import open_dataset
from ondevice.errors import CheckpointError, OndeviceError, ResourceError, UsageError
from ondevice.model.average import load_average
from ondevice.run.config import changed_keys, to_toml
from ondevice.run.create import create_run
from ondevice.run.directory import RunDir, home
from ondevice.run.files import read_json
from ondevice.run.recipe import DataRecipe, Fit, Recipe
from ondevice.run.schema import Config
from ondevice.run.store import Checkpoint, Store
from ondevice.train.averaging import average_of
from ondevice.train.checkpoint import exactness_facts, freeze, load_tensors, write
from ondevice.train.compiler import check_compile
from ondevice.train.fitting import optimizer_state_of
from ondevice.train.fork_config import ForkWish, child_config, child_fit
from ondevice.train.fork_vocabulary import ForkedVocabulary, forked_vocabulary, tables_change
from ondevice.train.optimizer import make_optimizer
from ondevice.train.order import curriculum_recipe, data_recipe, with_order
from ondevice.train.plan import make_recipe
from ondevice.train.schedule import learning_rate
from ondevice.train.state import TrainState, restore_rng
from ondevice.train.top_layers import check_top_layers
from ondevice.train.wish import corpus_of, make_dataset

__all__ = ["Fork", "ForkWish", "fork_run", "plan_fork"]

_TAIL_SHARE = 0.1  # of the steps so far: as long as a decay has to be, by the published runs this follows


@dataclass(frozen=True, kw_only=True)
class Fork:
    """A fork decided on and not yet made. ``notes`` are sentences about what was kept and what begins anew. With
    ``averaged`` its first weights are the mean of these checkpoints, which are leased until it is made."""

    path: Path
    config: Config
    recipe: Recipe
    fit: Fit
    dataset: Dataset
    checkpoint: Checkpoint
    parent: dict[str, Any]
    keeps_optimizer: bool
    keeps_cursor: bool
    notes: tuple[str, ...]
    vocabulary: ForkedVocabulary
    averaged: tuple[Checkpoint, ...] = ()


def plan_fork(
    run: RunDir,
    checkpoint: Checkpoint,
    wish: ForkWish,
    *,
    averaged: tuple[Checkpoint, ...] = (),
    progress: Callable[[int, int, str], None] | None = None,
    folder: Path | None = None,
) -> Fork:
    """Decides what the fork is, building its dataset where text was added. The caller holds a lease on the checkpoint,
    and on those that are ``averaged``. It will be made in ``folder`` (None: that of all runs).

    Raises UsageError for a change that no fork can make, DataError, CheckpointError or ResourceError.
    """
    before = run.read_recipe()
    if not before.made(checkpoint.facts.get("recipe_sha256")):
        raise CheckpointError(f"{checkpoint.path}: was made by another recipe than that of {run.name}.")
    config = child_config(run, before, checkpoint, wish)
    path, parent = (folder or home() / "runs") / config.name, _parent(run, checkpoint, before, averaged)
    _refuse_taken(RunDir(path), parent)
    keeps_optimizer = _keeps_optimizer(config, before, checkpoint, wish)
    dataset = make_dataset(config, progress) if wish.add_data else open_dataset(before.data)
    vocabulary = forked_vocabulary(config, run, before, dataset, checkpoint)
    recipe = _child_recipe(config, before, dataset, checkpoint, wish)
    recipe = dataclasses.replace(recipe, vocabulary=vocabulary.recipe)
    keeps_cursor = recipe.data.order_sha256 == before.data.order_sha256
    return Fork(
        path=path,
        config=config,
        recipe=recipe,
        fit=child_fit(config, checkpoint, recipe, wish),
        dataset=dataset,
        checkpoint=checkpoint,
        parent=parent,
        keeps_optimizer=keeps_optimizer,
        keeps_cursor=keeps_cursor,
        notes=(
            *_notes(before, recipe, wish, keeps_optimizer=keeps_optimizer, keeps_cursor=keeps_cursor),
            *vocabulary.notes(before),
        ),
        averaged=averaged,
        vocabulary=vocabulary,
    )


def _refuse_taken(there: RunDir, parent: dict[str, Any]) -> None:
    """Before a dataset is built for nothing. Another fork of the same checkpoint is told apart by `fork_run`."""
    with suppress(OndeviceError):
        if there.read_identity()["parent"] == parent:
            return
    if os.path.lexists(there.path):
        raise UsageError(f"{there.path}: a run of this name exists; choose another with --name.")


def _keeps_optimizer(config: Config, before: Recipe, checkpoint: Checkpoint, wish: ForkWish) -> bool:
    same = _keeps_muon(config, before, wish) or optimizer_state_of(config) == before.train.optimizer_state
    same = same and config.train.top_layers == before.train.top_layers and not tables_change(config, before)
    kept = same and not wish.fresh_optimizer
    if kept and not checkpoint.complete:
        raise CheckpointError(
            f"{checkpoint.path}: its optimizer state was dropped to save space; fork another checkpoint, or add "
            "--fresh-optimizer."
        )
    return kept


def _keeps_muon(config: Config, before: Recipe, wish: ForkWish) -> bool:
    """Whether updates go on being computed as the parent's were, however this version would begin."""
    both = before.adapter is None and config.train.optimizer == before.train.optimizer == "muon"
    return both and not wish.fresh_optimizer


def fork_run(fork: Fork) -> RunDir:
    """Makes the run, its first checkpoint included, in one instant.

    Repeated, it gives the run that was made before. Raises UsageError when the name is taken by another run,
    ResourceError on a full disk.
    """
    made, config_toml = RunDir(fork.path), to_toml(fork.config)
    with suppress(OndeviceError, OSError):
        same = made.read_identity()["parent"] == fork.parent and made.read_recipe().sha256 == fork.recipe.sha256
        if same and made.config.read_bytes() == config_toml.encode():
            return made
    _refuse_full_disk(fork)
    return create_run(
        fork.path,
        config_toml=config_toml,
        recipe=fork.recipe,
        fit=fork.fit,
        save_tokenizer=fork.dataset.tokenizer().save,
        parent=fork.parent,
        save_vocabulary=fork.vocabulary.save,
        fill=lambda draft: _first_checkpoint(fork, Store(draft.checkpoints)),
    )


def _refuse_full_disk(fork: Fork) -> None:
    """Its first checkpoint is as large as the parent's, and the next launch wants some room left."""
    need_mb = sum(entry["bytes"] for entry in fork.checkpoint.files.values()) / 2**20
    need_mb += fork.config.limits.min_free_disk_mb
    with suppress(OSError):
        free_mb = shutil.disk_usage(home()).free / 2**20
        if free_mb < need_mb:
            raise ResourceError(
                f"{home()}: {free_mb:,.1f} MB are free and the fork needs {need_mb:,.1f} MB, limits.min_free_disk_mb "
                "included; free some space and repeat the command."
            )


def _child_recipe(config: Config, before: Recipe, dataset: Dataset, checkpoint: Checkpoint, wish: ForkWish) -> Recipe:
    assert config.train.batch is not None
    batch, shape = config.train.batch, dataclasses.replace(before.model, dropout=config.model.dropout)
    check_top_layers(config, shape, learned=True)
    check_compile(config, examples=dataset.examples is not None)
    steps, reason = _steps(before, checkpoint, wish, tokens_per_step=batch * shape.context)
    own = make_recipe(
        dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps)),
        corpus_of(dataset),
        shape=shape,
        batch=batch,
        data=_child_data(config, before, dataset, wish),
        precision=config.train.precision,
        tok_s=None,
        prompts=before.sample.prompts,
        why={},
        panel_prompts=before.eval.panel_prompts,
    )
    own = _ordered(own, config, before, dataset, wish)
    if _keeps_muon(config, before, wish):
        own = dataclasses.replace(
            own, train=dataclasses.replace(own.train, optimizer_state=before.train.optimizer_state)
        )
    tokens = _tokens_seen(checkpoint)
    start = checkpoint.step
    return dataclasses.replace(
        own,
        base=before.base,
        adapter=before.adapter,
        train=dataclasses.replace(
            own.train,
            steps=start + steps,
            tokens=tokens + own.train.tokens,
            start_step=start,
            start_tokens=tokens,
        ),
        eval=dataclasses.replace(own.eval, steps=tuple(start + step for step in own.eval.steps)),
        sample=dataclasses.replace(own.sample, steps=tuple(start + step for step in own.sample.steps)),
        why={**own.why, "train.steps": reason},
    )


def _tokens_seen(checkpoint: Checkpoint) -> int:
    return int(read_json(checkpoint.path / "state.json")["tokens"])


def _steps(before: Recipe, checkpoint: Checkpoint, wish: ForkWish, *, tokens_per_step: int) -> tuple[int, str]:
    """Steps of the fork's own, and the reason."""
    if wish.steps is not None:
        return wish.steps, f"{wish.steps:,} steps from step {checkpoint.step:,}, as given"
    if wish.tokens is not None:
        return math.ceil(wish.tokens / tokens_per_step), f"the first step at or past {wish.tokens:,} more tokens"
    if wish.tail:
        steps = max(1, round(_TAIL_SHARE * checkpoint.step))
        return steps, f"a tail of {_TAIL_SHARE:.0%} of the {checkpoint.step:,} steps so far"
    left = before.train.steps - checkpoint.step
    if left <= 0:
        raise UsageError(
            f"Step {checkpoint.step:,} is the last of its run, so say how far the fork goes: --tokens +5M, --steps "
            "+500, or --tail for a decay."
        )
    return left, f"the {left:,} steps that the parent had left"


def _ordered(own: Recipe, config: Config, before: Recipe, dataset: Dataset, wish: ForkWish) -> Recipe:
    """With the parent's stages or curriculum where it had some and nobody asked for others, else with those of the
    config."""
    if not _keeps_order(own, config, before, wish):
        return with_order(own, config, dataset)
    data = dataclasses.replace(own.data, stages=before.data.stages, curriculum=before.data.curriculum)
    cursor = BatchCursor.of(dataset, data, context=own.model.context, batch=own.train.batch)
    return dataclasses.replace(own, data=dataclasses.replace(data, order_sha256=cursor.order_sha256))


def _keeps_order(own: Recipe, config: Config, before: Recipe, wish: ForkWish) -> bool:
    """Whether the order goes on that the parent was in, which was made for the parent's length."""
    if wish.add_data or config.data.order != before.data.order:
        return False
    if config.data.order == "staged":
        return bool(before.data.stages) and "stages" not in changed_keys(wish.changes, "data")
    parents = before.data.curriculum
    return parents is not None and own.data.curriculum == dataclasses.replace(parents, windows=None)


def _child_data(config: Config, before: Recipe, dataset: Dataset, wish: ForkWish) -> DataRecipe:
    """The parent's order where nothing of it changed, so that the fork reads on where the parent was."""
    if not wish.add_data:
        order = {key: getattr(config.data, key) for key in ("order", "seed", "max_unique_tokens", "temperature")}
        ladder = curriculum_recipe(config, dataset)
        return dataclasses.replace(before.data, stages=(), parts=(), curriculum=ladder, **order)
    found = data_recipe(config, dataset)
    if found.tokenizer_sha256 != before.data.tokenizer_sha256:
        raise UsageError("The new text was built with another tokenizer than the parent's; this is a bug, report it.")
    return found


def _parent(run: RunDir, checkpoint: Checkpoint, before: Recipe, averaged: tuple[Checkpoint, ...]) -> dict[str, Any]:
    identity = run.read_identity()
    mean = {"averaged": [[each.step, each.sha256] for each in averaged]} if averaged else {}
    return {
        "run": run.name,
        "id": identity["id"],
        "step": checkpoint.step,
        "checkpoint_sha256": checkpoint.sha256,
        "recipe_sha256": before.sha256,
        "lineage": identity.get("lineage"),
        **mean,
    }


def _notes(
    before: Recipe, recipe: Recipe, wish: ForkWish, *, keeps_optimizer: bool, keeps_cursor: bool
) -> Iterator[str]:
    train = recipe.train
    first, last = learning_rate(train, train.start_step), learning_rate(train, train.steps - 1)
    was = learning_rate(before.train, max(before.train.start_step, train.start_step - 1))
    decay = train.schedule == "wsd" and train.tail_steps == train.planned_steps
    steps = f"Steps {train.start_step + 1:,} to {train.steps:,}" if train.planned_steps > 1 else f"Step {train.steps:,}"
    shape = f"{train.tail} tail" if decay else train.schedule
    yield f"{steps}: {shape}, learning rate {first:.3g} to {last:.3g} (the parent's was {was:.3g})."
    if wish.tail and train.lr <= train.lr_min * 1.0001:
        yield (
            "The rate is at its lowest already, so this tail does not lower it: fork an earlier step, or say where to "
            f"end with --set train.lr_min={train.lr / 10:.1g}."
        )
    if keeps_optimizer:
        yield "The optimizer state is kept."
    else:
        yield f"The optimizer state begins anew ({before.train.optimizer} to {train.optimizer})."
    if keeps_cursor:
        yield "The order of the text goes on where the parent was."
    else:
        yield f"The text{', old and new,' if wish.add_data else ''} is read from the start in a new order."


def _first_checkpoint(fork: Fork, store: Store) -> None:
    """The parent's weights, optimizer, counters and random state as the first checkpoint of the child."""
    recipe, checkpoint = fork.recipe, fork.checkpoint
    raw = read_json(checkpoint.path / "state.json")
    model = fork.vocabulary.model(recipe)
    optimizer = make_optimizer(model, recipe.train)
    average = average_of(model, recipe.train)
    if not fork.vocabulary.restores:
        load_tensors(checkpoint, model, optimizer if fork.keeps_optimizer else None, average)
    elif average is not None:
        average.restart()
    if fork.averaged:
        load_average([each.path / "model.safetensors" for each in fork.averaged], model)
        if average is not None:
            average.restart()
    state = TrainState(
        model=model,
        optimizer=optimizer,
        cursor=_cursor(fork, raw),
        step=checkpoint.step,
        tokens=recipe.train.start_tokens,
        train_s=raw["train_s"],
        average=average,
    )
    restore_rng(raw["rng"])
    frozen = freeze(state, recipe=recipe, fit=fork.fit, launch=0)
    # Where the steps so far were made, not where they were copied: the first launch says what is not as it was there.
    made = {key: checkpoint.facts.get(key) for key in exactness_facts(recipe)}
    write(store, dataclasses.replace(frozen, facts={**frozen.facts, **made}))


def _cursor(fork: Fork, raw: dict[str, Any]) -> BatchCursor:
    recipe = fork.recipe
    cursor = BatchCursor.of(fork.dataset, recipe.data, context=recipe.model.context, batch=recipe.train.batch)
    if fork.keeps_cursor and raw["cursor"] is not None:
        cursor.load_state_dict(raw["cursor"])
    return cursor
