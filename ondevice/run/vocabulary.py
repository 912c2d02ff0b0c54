"""``vocabulary.json``: the tokens that a run with a trimmed vocabulary keeps, written once, proved by its recipe.

Written where a run is made; read by its launches and by everyone who puts its weights back into the whole model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from ondevice.errors import DataError
from ondevice.run.directory import RunDir
from ondevice.run.files import json_bytes, read_json, write_atomic
from ondevice.run.recipe import Recipe, VocabularyRecipe

__all__ = ["read_kept", "vocabulary_recipe", "write_kept"]

_VERSION = 1


def vocabulary_recipe(kept: Sequence[int]) -> VocabularyRecipe:
    """What a recipe remembers of a list of ids."""
    text = json.dumps(list(kept), separators=(",", ":"))
    return VocabularyRecipe(kept=len(kept), sha256=hashlib.sha256(text.encode()).hexdigest())


def write_kept(run: RunDir, kept: Sequence[int]) -> None:
    """Raises ResourceError or DataError."""
    write_atomic(run.vocabulary, json_bytes({"v": _VERSION, "kept": list(kept)}))


def read_kept(run: RunDir, recipe: Recipe) -> list[int] | None:
    """The ids that a run keeps, ascending; None where it keeps all. Raises DataError for a list that is lost or is not
    the one that the recipe names."""
    if recipe.vocabulary is None:
        return None
    mend = f"`ondevice doctor {run.name}` looks for it elsewhere; else restore it from a copy of the run."
    try:
        raw = read_json(run.vocabulary)
    except DataError as error:
        raise DataError(f"{str(error).rstrip('.')}; {mend}") from error
    kept = raw.get("kept") if isinstance(raw, dict) else None
    if not isinstance(kept, list) or not all(type(each) is int for each in kept):
        raise DataError(f"{run.vocabulary}: not a list of tokens; {mend}")
    if vocabulary_recipe(kept).sha256 != recipe.vocabulary.sha256:
        raise DataError(f"{run.vocabulary}: not the tokens that this run's recipe names (hash differs); {mend}")
    return kept
