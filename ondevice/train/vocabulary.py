"""A trimmed vocabulary as a config wishes for it: which tokens of the base are kept, and what the others would take.

Kept is what occurs in training and validation text and in the prompts of the run, every special token, and every token
of a single byte, with which any other text can be spelled. Held-out rows of a contract are answered by the whole model,
so that their tokens need no row here. No torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt

from ondevice.data.chat import encode_chat
from ondevice.data.dataset import Dataset
from ondevice.data.tokenizer import Tokenizer
from ondevice.errors import OndeviceError, UsageError
from ondevice.run.recipe import Fit, Recipe
from ondevice.run.schema import Config
from ondevice.run.vocabulary import vocabulary_recipe
from ondevice.train.memory import estimate_run
from ondevice.train.plan import LARGEST_PANEL
from ondevice.train.prompts import panel_prompts, sample_prompts

__all__ = ["WORTH_MB", "check_vocabulary", "kept_ids", "occurring", "refuse_others", "told_vocabulary"]

WORTH_MB = 16.0  # less is not worth a word
_PADDING = 0  # the id in places that hold no token


def check_vocabulary(config: Config) -> None:
    """Raises UsageError where nothing could be left out, or text may come with tokens that were."""
    if config.model.vocabulary == "full":
        return
    if not config.model.base:
        raise UsageError(
            "model.vocabulary = 'trimmed' leaves out tokens that a base has learned, and this model begins with "
            "nothing; name one with model.base, or make tokenizer.vocab_size smaller."
        )
    if config.chain.grow:
        raise UsageError(
            "model.vocabulary = 'trimmed' does not go with chain.grow: text that comes later may have tokens that were "
            "left out; leave one of them out."
        )


def kept_ids(config: Config, dataset: Dataset) -> list[int]:
    """The tokens that a run of this config keeps, ascending; the same for the same config and dataset."""
    tokenizer = dataset.tokenizer()
    keep = occurring(dataset)
    keep[tokenizer.byte_lengths() <= 1] = True
    keep[[_PADDING, tokenizer.eot_id, *tokenizer.special_ids.values()]] = True
    keep[[token for ids in _asked(config, dataset, tokenizer) for token in ids]] = True
    return [int(token) for token in np.flatnonzero(keep)]


def occurring(dataset: Dataset) -> npt.NDArray[np.bool_]:
    """Which tokens occur in training and validation text; shape [vocab_size]."""
    found = dataset.unigram_counts() > 0
    for entry in dataset.sources:
        for block in dataset.stream(entry.name, "val").blocks():
            found[block] = True
    return found


def refuse_others(dataset: Dataset, kept: Sequence[int]) -> None:
    """Text that was added may have tokens that a run left out. Raises UsageError."""
    found = occurring(dataset)
    found[list(kept)] = False
    if others := int(np.count_nonzero(found)):
        raise UsageError(
            f"The new text has {others:,} tokens that the run left out of its trimmed vocabulary; leave it out, or "
            "train all tokens again in a fork: `ondevice fork RUN --set model.vocabulary=full`."
        )


def _asked(config: Config, dataset: Dataset, tokenizer: Tokenizer) -> Iterator[Sequence[int]]:
    """What the run is asked to write after."""
    prompts = config.sample.prompts or sample_prompts(dataset)
    panel = LARGEST_PANEL if config.eval.panel is None else config.eval.panel
    for prompt in (*prompts, *panel_prompts(dataset, panel)):
        yield tokenizer.encode(prompt)
    if dataset.examples is not None and dataset.examples.kind != "completion":
        for prompt in prompts:
            with suppress(OndeviceError):  # a template that refuses it is told when it is to be written after
                yield encode_chat([{"role": "user", "content": prompt}], tokenizer)


def told_vocabulary(recipe: Recipe, fit: Fit, kept: Sequence[int], *, trimmed: bool) -> Recipe:
    """The recipe, which trains with the ``kept`` tokens where it is ``trimmed``, and says what that spares or would."""
    less = dataclasses.replace(recipe, vocabulary=vocabulary_recipe(kept))
    spared_mb = estimate_run(recipe, fit).total_mb - estimate_run(less, fit).total_mb
    part = f"{len(kept):,} of {recipe.model.vocab_size:,} tokens"
    told = (
        f"{part} occur, are special or a single byte, and train; {spared_mb:,.0f} MB less. Losses of this run are over "
        "these tokens; the others stay as in the base, for all that is exported, written or evaluated later"
    )
    if not trimmed:
        if spared_mb < WORTH_MB:
            return recipe
        told = f"full; trimmed would train {part} and spare {spared_mb:,.0f} MB, but learns otherwise"
    chosen = less if trimmed else recipe
    return dataclasses.replace(chosen, why={**recipe.why, "model.vocabulary": told})
