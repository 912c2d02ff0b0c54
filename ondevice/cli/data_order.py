"""``ondevice data order``: a picture of which source is read when, and what is wrong with it."""

from __future__ import annotations

import argparse
import dataclasses
import math
import shutil
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ondevice.cli.build_progress import built
from ondevice.cli.common import config_from, looks_like_config, print_json
from ondevice.cli.data_parts import planned_parts
from ondevice.cli.folding import tell
from ondevice.errors import UsageError

if TYPE_CHECKING:
    from ondevice.data.cursor import BatchCursor
    from ondevice.data.picture import Picture
    from ondevice.run.recipe import DataRecipe

__all__ = ["show_order"]

_SHADES = " .:-=+*#%@"
_LONGEST_NAME, _LEAST_STRETCHES, _MOST_STRETCHES = 14, 10, 60


def show_order(args: argparse.Namespace) -> int:
    """Prints the order of a run, or of a config or text as it would be."""
    from ondevice.data.picture import look, warnings_about

    cursor, windows, what, data = _of_run(args.target) if _is_run(args) else _of_wish(args)
    columns = shutil.get_terminal_size((45, 24)).columns
    room = columns - _label_width(cursor.tokens_by_source(0), data) - 16
    picture = look(cursor, windows=windows, stretches=max(_LEAST_STRETCHES, min(_MOST_STRETCHES, room)))
    warnings = list(warnings_about(picture))
    if args.json:
        shares = [[round(share, 4) for share in row] for row in picture.shares_PS.tolist()]
        told = {key: getattr(picture, key) for key in ("sources", "windows", "tokens", "epochs")}
        if picture.difficulty_P is not None:
            told["difficulty"] = [round(mean, 4) for mean in picture.difficulty_P.tolist()]
        print_json({"order": what, "context": cursor.context, **told, "shares": shares, "warnings": warnings})
        return 0
    for line in [what, *_lines(picture, _label_width(picture.sources, data)), *_difficulty_lines(picture, data)]:
        tell(line)
    for warning in warnings:
        tell(f"Warning: {warning}")
    return 0


def _is_run(args: argparse.Namespace) -> bool:
    if not args.target or looks_like_config(args.target):
        return False
    if args.data or args.set:
        raise UsageError(f"{args.target} is a run, whose order never changes; leave --data and --set out.")
    return True


def _of_run(name: str) -> tuple[BatchCursor, int, str, DataRecipe]:
    from ondevice.data.cursor import BatchCursor
    from ondevice.data.parcel import open_dataset
    from ondevice.run.directory import find_run

    recipe = find_run(name).read_recipe()
    dataset = open_dataset(recipe.data)
    cursor = BatchCursor.of(dataset, recipe.data, context=recipe.model.context, batch=recipe.train.batch)
    return (
        cursor,
        recipe.train.planned_steps * recipe.train.batch,
        _title(recipe.data.order, f"{len(recipe.data.parts)} parts" if recipe.data.parts else "the whole run"),
        recipe.data,
    )


def _of_wish(args: argparse.Namespace) -> tuple[BatchCursor, int, str, DataRecipe]:
    """The order that a config wishes for, over its tokens or passes, else over one pass; without torch."""
    from ondevice.data.cursor import BatchCursor
    from ondevice.train.examples_plan import plan_examples
    from ondevice.train.order import data_recipe, staged
    from ondevice.train.wish import corpus_of

    config = config_from(args, args.target)
    dataset = built(config, quiet=args.json)
    corpus = corpus_of(dataset)
    if examples := plan_examples(config, dataset, corpus, {}, longest_context=None):
        config, corpus = examples.config, examples.corpus
    context, train, tokens = config.model.context or 256, config.train, corpus.train_tokens
    what = "one pass"
    wanted = tokens * (train.epochs or 1.0)
    if train.tokens is not None or train.epochs is not None:
        wanted, what = train.tokens or wanted, "the whole run"
    elif train.steps is not None and train.batch is not None:
        wanted, what = train.steps * train.batch * context, "the whole run"
    windows = max(1, math.ceil(wanted / context))
    if parts := planned_parts(config, dataset):
        data = dataclasses.replace(data_recipe(config, dataset), parts=parts)
        cursor = BatchCursor.of(dataset, data, context=context, batch=train.batch or 1)
        return cursor, sum(part.windows for part in parts), _title(config.data.order, f"{len(parts)} parts"), data
    data = staged(data_recipe(config, dataset), config, dataset, context=context, windows=windows)
    cursor = BatchCursor.of(dataset, data, context=context, batch=train.batch or 1)
    return cursor, windows, _title(config.data.order, what), data


def _title(order: str, what: str) -> str:
    return f"Order {order}, {what} from left to right"


def _label_width(sources: Iterable[str], data: DataRecipe) -> int:
    """Columns for what stands before a row."""
    labels = [*sources, *([data.curriculum.by] if data.curriculum else [])]
    return min(_LONGEST_NAME, max(map(len, labels)))


def _lines(picture: Picture, width: int) -> Iterator[str]:
    """A row a source: darker is more. Never wider than the terminal."""
    for index, name in enumerate(picture.sources):
        cells = "".join(_shade(share) for share in picture.shares_PS[:, index].tolist())
        tokens = picture.tokens[index]
        told = f"{tokens / 1e6:.1f}M" if tokens >= 1e5 else f"{tokens / 1e3:.1f}k"
        yield f"{name[:width]:{width}} |{cells}| {told:>6} {picture.epochs[index]:.1f}x"
    yield f"{'':{width}}  darker: a larger share; tokens; epochs"


def _difficulty_lines(picture: Picture, data: DataRecipe) -> Iterator[str]:
    """A row with the mean length or score of each stretch, and what it runs from and to."""
    if picture.difficulty_P is None or data.curriculum is None:
        return
    means = picture.difficulty_P.tolist()
    low, span = min(means), (max(means) - min(means)) or 1.0
    width = _label_width(picture.sources, data)
    is_length = data.curriculum.by == "length"
    yield f"{data.curriculum.by:{width}} |{''.join(_shade((mean - low) / span) for mean in means)}|"
    unit, darker = (" tokens", "longer") if is_length else ("", "higher")
    yield f"{'':{width}}  mean {means[0]:.3g} to {means[-1]:.3g}{unit}; darker: {darker}"


def _shade(share: float) -> str:
    return _SHADES[0] if share <= 0 else _SHADES[max(1, min(len(_SHADES) - 1, math.ceil(share * (len(_SHADES) - 1))))]
