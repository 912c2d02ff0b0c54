"""The tokens that a fork trains with: those of its parent, all of them again, or fewer where a person asks for that.

A fork of a whole model that trains fewer puts the rows of the others aside, as its parent had learned them.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from ondevice.data.dataset import Dataset
from ondevice.model import safetensors
from ondevice.model.base import build_for
from ondevice.model.decoder import Decoder
from ondevice.model.restore import load_whole, write_put_aside
from ondevice.model.vocabulary import TABLES, Vocabulary
from ondevice.run.directory import RunDir
from ondevice.run.files import HashedFile
from ondevice.run.recipe import Recipe, VocabularyRecipe
from ondevice.run.schema import Config
from ondevice.run.store import Checkpoint
from ondevice.run.vocabulary import read_kept, vocabulary_recipe, write_kept
from ondevice.train.vocabulary import check_vocabulary, kept_ids, refuse_others

__all__ = ["ForkedVocabulary", "forked_vocabulary", "tables_change"]

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ForkedVocabulary:
    """``kept`` by the fork (None: all), and how its recipe says it. ``begins_anew``: the tables that learn have other
    rows than the parent's, so that no state of an optimizer fits them."""

    run: RunDir
    checkpoint: Checkpoint
    kept: Sequence[int] | None
    recipe: VocabularyRecipe | None
    begins_anew: bool

    @property
    def restores(self) -> bool:
        """Whether the rows that the parent left out come back."""
        return self.begins_anew and self.kept is None

    def save(self, draft: RunDir) -> None:
        """Writes the list, and the rows that are put aside, into the run that is made. Raises OSError."""
        if self.kept is None or self.recipe is None:
            return
        write_kept(draft, self.kept)
        if self.recipe.put_aside and self.begins_anew:
            with safetensors.open_file(self.checkpoint.path / "model.safetensors") as file:
                tables = {name: file.tensor(name) for name in TABLES if name in file.names}
                write_put_aside(draft.put_aside, tables, self.kept)
        elif self.recipe.put_aside:
            with self.run.put_aside.open("rb") as source, closing(HashedFile(draft.put_aside)) as file:
                shutil.copyfileobj(source, file, _BLOCK)

    def notes(self, before: Recipe) -> Iterator[str]:
        """What is another vocabulary than the parent's, in a sentence."""
        if self.recipe is not None and before.vocabulary is None:
            aside = "put aside as they are" if self.recipe.put_aside else "those of the base"
            yield (
                f"{self.recipe.kept:,} of {before.model.vocab_size:,} tokens train from here on, which learns "
                f"otherwise; the rows of the others are {aside} and come back in what is exported."
            )
        elif self.recipe is None and before.vocabulary is not None:
            yield f"All {before.model.vocab_size:,} tokens train again, the parent trained {before.vocabulary.kept:,}."

    def model(self, recipe: Recipe) -> Decoder:
        """The model of the fork's ``recipe``, as it trains; its weights are loaded only where it `restores`."""
        if self.restores:
            whole = dataclasses.replace(recipe, vocabulary=self.run.read_recipe().vocabulary)
            return load_whole(self.run, self.checkpoint, recipe=whole, to_learn=True)
        vocabulary = None if self.kept is None else Vocabulary(self.kept, recipe.model.vocab_size)
        return build_for(recipe, fresh=False, to_learn=True, vocabulary=vocabulary)


def tables_change(config: Config, before: Recipe) -> bool:
    """Whether a fork of this config learns tables with other rows than its parent's; adapters learn none."""
    return before.adapter is None and (config.model.vocabulary == "trimmed") != (before.vocabulary is not None)


def forked_vocabulary(
    config: Config, run: RunDir, before: Recipe, dataset: Dataset, checkpoint: Checkpoint
) -> ForkedVocabulary:
    """By the config of the fork. Raises UsageError where its text has tokens that the parent left out, DataError."""
    check_vocabulary(config)
    kept = read_kept(run, before)
    trimmed, told = config.model.vocabulary == "trimmed", None
    if trimmed and kept is not None:
        refuse_others(dataset, kept)
        told = before.vocabulary
    elif trimmed:
        kept = kept_ids(config, dataset)
        told = dataclasses.replace(vocabulary_recipe(kept), put_aside=before.adapter is None)
    return ForkedVocabulary(
        run=run,
        checkpoint=checkpoint,
        kept=kept if trimmed else None,
        recipe=told,
        begins_anew=tables_change(config, before),
    )
