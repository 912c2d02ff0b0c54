"""What a plan needs to know of examples: how long a row must be, how many rows there are, how many make a step.

No torch here. The rows of a plan are those that the cursor will serve.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ondevice.data.cursor import packed_rows
from ondevice.data.dataset import Dataset
from ondevice.data.packed import PackedRows
from ondevice.run.schema import Config
from ondevice.train.plan import FEW_UPDATES
from ondevice.train.sizing import Corpus

__all__ = ["ExamplePlan", "plan_examples"]

LONGEST_ROW = 512  # tokens, where nobody asked for more: memory grows with it
USUAL_IN_ROW = 4  # examples
USUAL_EXAMPLES, USUAL_EPOCHS = 8, 3.0  # in a step; over all


@dataclass(frozen=True, kw_only=True)
class ExamplePlan:
    """``config`` has context, batch and passes filled in where they were open; ``corpus`` counts places of rows."""

    config: Config
    corpus: Corpus
    rows: PackedRows

    def warnings(self) -> Iterator[str]:
        """Sentences about examples that are cut or left out."""
        context, rows = self.rows.context, self.rows
        cut = rows.truncated - rows.dropped
        if cut:
            yield (
                f"{cut:,} examples are longer than {context} tokens: they lose the beginning of their prompt "
                "(data.too_long). A larger model.context keeps it."
            )
        if rows.dropped:
            yield (
                f"{rows.dropped:,} examples are left out, because they are longer than {context} tokens"
                f"{'' if self.config.data.too_long == 'drop' else ' by their answer alone'}; make model.context larger."
            )


def plan_examples(
    config: Config, dataset: Dataset, corpus: Corpus, why: dict[str, str], *, longest_context: int | None
) -> ExamplePlan | None:
    """The plan of a dataset of examples, None for plain text; reasons go to ``why``. ``longest_context`` is the base's.

    Raises DataError where no example fits.
    """
    if dataset.examples is None:
        return None
    if config.model.context is None:
        context = _context(dataset, why, longest_context)
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, context=context))
    context = config.model.context or LONGEST_ROW
    rows = packed_rows(dataset, context=context, seed=config.data.seed, order=config.data.order)
    assert rows is not None
    places = sum(rows.counts) * context
    why["data.examples"] = (
        f"{_examples(rows):,} in {sum(rows.counts):,} rows of {context} tokens, {rows.filled:.0%} of them filled"
    )
    config = _with_passes(config, why)
    config = _with_batch(config, rows, why)
    corpus = dataclasses.replace(corpus, train_tokens=places, largest_tokens=None, packed=True)
    return ExamplePlan(config=config, corpus=corpus, rows=rows)


def _examples(rows: PackedRows) -> int:
    return sum(len(source.packing.members) for source in rows.sources)


def _context(dataset: Dataset, why: dict[str, str], longest_context: int | None) -> int:
    """Room for the longest example and for some usual ones, so that rows are filled."""
    lengths = np.concatenate([dataset.example_rows(entry.name, "train").lengths for entry in dataset.sources])
    longest, usual = int(lengths.max(initial=2)), int(np.median(lengths)) if len(lengths) else 2
    wanted = max(longest - 1, USUAL_IN_ROW * usual)
    context = min(math.ceil(wanted / 32) * 32, LONGEST_ROW, longest_context or LONGEST_ROW)
    why["model.context"] = f"{context}: the longest example has {longest:,} tokens, half of them at most {usual:,}"
    return context


def _with_passes(config: Config, why: dict[str, str]) -> Config:
    train, budget = config.train, config.budget
    if (train.tokens, train.steps, train.epochs, budget.minutes) != (None, None, None, None):
        return config
    why["train.epochs"] = f"nothing else was given, so {USUAL_EPOCHS:g} passes over the examples"
    return dataclasses.replace(config, train=dataclasses.replace(train, epochs=USUAL_EPOCHS))


def _with_batch(config: Config, rows: PackedRows, why: dict[str, str]) -> Config:
    """Rows with about `USUAL_EXAMPLES` in all; fewer where there would be few steps."""
    train, count = config.train, sum(rows.counts)
    if train.batch is not None:
        return config
    batch = max(1, round(USUAL_EXAMPLES * count / max(1, _examples(rows))))
    passes = train.epochs or USUAL_EPOCHS
    while batch > 1 and train.steps is None and passes * count / batch < FEW_UPDATES:
        batch //= 2
    rows_hold = "1 row holds" if batch == 1 else f"{batch} rows hold"
    why["train.batch"] = f"{rows_hold} about {batch * _examples(rows) / count:.0f} examples"
    return dataclasses.replace(config, train=dataclasses.replace(train, batch=batch))
