"""What a person asks of a fork, and the config that follows from it: the parent's wish as it came true, then changed.

Refuses what no fork can change. Knows no tensors; ``ondevice.train.fork`` makes the recipe and the run.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ondevice.data.sources_find import slug
from ondevice.errors import DataError, OndeviceError, UsageError
from ondevice.run.config import changed_keys, parse_config, read_limits, read_wish, to_toml
from ondevice.run.directory import RunDir, safe_name
from ondevice.run.papers import paper_faults
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.schema import ChainConfig, Config, Limits, SourceConfig, TokenizerConfig, TrainConfig
from ondevice.run.store import Checkpoint
from ondevice.train.schedule import learning_rate

__all__ = ["ForkWish", "child_config", "child_fit", "named_apart", "with_text"]

_TABLES = frozenset(field.name for field in dataclasses.fields(Config)) - {"name"}
_MORE = "say how much more with --tokens +5M or --steps +500"
_SHAPE = "the weights fit no other shape or vocabulary; start a new run for that"
_READ = "a text stays as it was read and split, or the model would be measured on what it has learned"
_FROZEN = {
    "model.": _SHAPE,
    "tokenizer.": _SHAPE,
    "budget.": _MORE,
    "train.steps": _MORE,
    "train.tokens": _MORE,
    "train.epochs": _MORE,
    "data.sources": "add text with --data PATH",
    "data.split": _READ,
    "data.deduplicate": _READ,
    "data.bad_utf8": _READ,
    "data.chunk_tokens": _READ,
    "data.items": _READ,
}
_CHANGEABLE = ("model.dropout", "model.vocabulary")  # of what is frozen
_PARENT_LETTERS = 80  # of its name, so that there is room for more


@dataclass(frozen=True, kw_only=True)
class ForkWish:
    """What a person asked for. ``tokens`` more than the checkpoint has seen, or ``steps`` more, or what the parent had
    left. ``tail``: the shape of a decay from the rate the parent had, over all of the fork."""

    name: str = ""
    tokens: int | None = None
    steps: int | None = None
    tail: str | None = None
    dense_steps: int | None = None
    add_data: tuple[SourceConfig, ...] = ()
    fresh_optimizer: bool = False
    changes: Sequence[str] = ()


def child_config(run: RunDir, before: Recipe, checkpoint: Checkpoint, wish: ForkWish) -> Config:
    """The parent's wish with what was derived for it written out, then the changes. The result stands by itself.

    Raises UsageError for a change that no fork can make, DataError where the parent's papers or texts are not whole.
    """
    _refuse_frozen(wish.changes)
    _refuse_damaged(run)
    wished = read_wish(run.config)
    shape = {key: getattr(before.model, key) for key in ("layers", "width", "heads", "kv_heads", "hidden", "context")}
    config = dataclasses.replace(
        wished,
        name=wish.name or _default_name(run, checkpoint, wish),
        train=_train(wished, before, checkpoint, wish),
        limits=_limits(run, wished, wish),
        chain=ChainConfig(),  # a fork is trained in one go
        model=dataclasses.replace(wished.model, **shape),
        eval=dataclasses.replace(wished.eval, max_tokens=before.eval.max_tokens, panel=len(before.eval.panel_prompts)),
        sample=dataclasses.replace(wished.sample, prompts=before.sample.prompts),
    )
    if wish.add_data:
        config = with_text(config, run, before, wish.add_data)
    return _checked(parse_config(to_toml(config), where="--set", base=Path.cwd(), changes=list(wish.changes)), wish)


def _refuse_frozen(changes: Sequence[str]) -> None:
    for change in changes:
        key = ".".join(part.strip() for part in change.partition("=")[0].split("."))
        if key in _TABLES:
            raise UsageError(f"--set {key}: write one key at a time, such as --set train.lr=1e-4.")
        advice = next((words for frozen, words in _FROZEN.items() if key.startswith(frozen)), None)
        if advice is not None and key not in _CHANGEABLE:
            raise UsageError(f"--set {key}: a fork cannot change this; {advice}.")


def _refuse_damaged(run: RunDir) -> None:
    """A paper that was changed by hand or by damage would be taken for the parent's wish. The fit is not read here."""
    for name, fault in paper_faults(run, run.read_identity()).items():
        if name != "fit.json":
            raise DataError(f"{fault.rstrip('.')}; repair it with `ondevice doctor {run.name}`, then fork.")


def _train(wished: Config, before: Recipe, checkpoint: Checkpoint, wish: ForkWish) -> TrainConfig:
    train = before.train
    kept = dataclasses.replace(
        wished.train,
        steps=None,
        tokens=None,
        epochs=None,
        batch=train.batch,
        lr=train.lr,
        warmup_steps=0,
        precision=train.precision,
    )
    if wish.tail is None:
        return kept
    rate = learning_rate(train, checkpoint.step)
    if rate <= 0 and "lr" not in changed_keys(wish.changes, "train"):
        raise UsageError(
            f"--tail: at step {checkpoint.step:,} the learning rate had come down to 0; fork an earlier step, or say "
            "where to begin with --set train.lr=1e-4."
        )
    tail = dataclasses.replace(kept, schedule="wsd", tail=wish.tail, tail_fraction=1.0)
    return dataclasses.replace(tail, lr=rate or train.lr, lr_min=min(train.lr_min, rate))


def _limits(run: RunDir, wished: Config, wish: ForkWish) -> Limits:
    """Those that hold for the parent now; damaged ones fall back to those it began with, as at its own launch."""
    limits = wished.limits
    if run.limits.exists():
        with suppress(OndeviceError):
            limits = read_limits(run.limits)
    if wish.dense_steps:
        limits = dataclasses.replace(limits, save_every_steps=wish.dense_steps, keep_every_steps=wish.dense_steps)
    return limits


def _default_name(run: RunDir, checkpoint: Checkpoint, wish: ForkWish) -> str:
    return safe_name(f"{run.name[:_PARENT_LETTERS]}-{'tail' if wish.tail else 'fork'}-{checkpoint.step}")


def with_text(config: Config, run: RunDir, before: Recipe, added: Sequence[SourceConfig]) -> Config:
    """Old and new text as one dataset, in the parent's vocabulary."""
    old = config.data.sources
    for source in old:
        if not os.path.exists(source.path):
            raise DataError(
                f"{source.path}: the text that the parent learned is not here, and --data puts old and new text "
                "together; put it back there, or start a new run with the new text."
            )
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, sources=(*old, *named_apart(added, old, before))),
        tokenizer=TokenizerConfig(path=str(run.tokenizer)),
    )


def named_apart(added: Sequence[SourceConfig], old: Sequence[SourceConfig], before: Recipe) -> tuple[SourceConfig, ...]:
    """New sources under names that no old one has. Raises UsageError for text that is an old one."""
    taken = {*before.data.weights, *map(_name_of, old)}
    named = []
    for source in added:
        if any(os.path.realpath(source.path) == os.path.realpath(each.path) for each in old):
            raise UsageError(f"{source.path}: the parent learns from this text already; --data is for other text.")
        named.append(dataclasses.replace(source, name=_free_name(source, taken)))
        taken.add(_name_of(named[-1]))
    return tuple(named)


def _name_of(source: SourceConfig) -> str:
    path = Path(source.path)
    return source.name or slug(path, direct=not path.is_dir())


def _free_name(source: SourceConfig, taken: set[str]) -> str:
    """The name as it is where that is free, else with more of the path, else with a number."""
    if _name_of(source) not in taken:
        return source.name
    path = Path(source.path)
    longer = slug(Path("-".join(path.parts[-2:])), direct=not path.is_dir())
    names = itertools.chain([longer], (f"{longer}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _checked(config: Config, wish: ForkWish) -> Config:
    if config.name != safe_name(config.name):
        raise UsageError(
            f"--name '{config.name}': use lower case letters, digits, '.', '_' and '-', at most 100, such as "
            f"'{safe_name(config.name)}'."
        )
    if config.train.precision == "auto":
        raise UsageError("--set train.precision: say fp32 or bf16; the parent keeps its own where nothing is said.")
    if wish.tail and config.train.tail == "inverse-proportional" and not config.train.lr_min:
        raise UsageError(
            "--tail: the lowest learning rate of the parent is 0, which this shape never reaches; take another, such "
            "as --tail linear, or say where to end with --set train.lr_min=1e-5."
        )
    return config


def child_fit(config: Config, checkpoint: Checkpoint, recipe: Recipe, wish: ForkWish) -> Fit:
    """The fit of the checkpoint, which may be smaller than the parent wished for, with what was asked for now."""
    fit = Fit.from_json(checkpoint.facts.get("fit"), where=str(checkpoint.path / "manifest.json"))
    fit = dataclasses.replace(fit, **{key: getattr(config.fit, key) for key in changed_keys(wish.changes, "fit")})
    return dataclasses.replace(fit, micro_batch=min(fit.micro_batch, recipe.train.batch))
