"""Growing corpora: new files in the folders of a chain's sources become a piece of text beside the old, and its parts.

Old tokens stay whatever becomes of their files. Every step can be repeated after a kill: chunks go on where they were,
and the piece counts only once a revision of the recipe names it. No torch; the caller holds the run's lock.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ondevice.data.build import build_beside
from ondevice.data.dataset import Dataset
from ondevice.data.growth import Growth, look, stayed
from ondevice.data.parcel import open_dataset
from ondevice.data.piece import known_files
from ondevice.data.sources import resolve
from ondevice.errors import DataError, UsageError
from ondevice.run.directory import RunDir
from ondevice.run.recipe import PartRecipe, Recipe
from ondevice.run.schema import Config, SourceConfig
from ondevice.train.revise import append, chain_of, newest_wish

__all__ = ["SETTLE_S", "Grown", "grow"]

SETTLE_S = 10.0
_SHOWN = 5

Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grown:
    """The parts that were added, how many files they are of, and sentences about what else was seen."""

    added: tuple[PartRecipe, ...]
    files: int
    notes: tuple[str, ...]


def grow(
    run: RunDir,
    *,
    parts: int | None = None,
    settle_s: float = SETTLE_S,
    now: Callable[[], float] = time.time,
    progress: Progress | None = None,
) -> Grown:
    """Adds what is new in the folders of a chain's sources as a revision of its recipe; nothing where nothing is.

    Raises UsageError for a run without parts or without folders, DataError where the dataset does not tell what was
    read, ResourceError on a full disk.
    """
    recipe, config = chain_of(run), newest_wish(run)
    folders = [source for source in config.data.sources if not source.files and os.path.isdir(source.path)]
    gone = [source for source in config.data.sources if not source.files and not os.path.exists(source.path)]
    if not folders and not gone:
        raise UsageError(f"{run.name}: learns from single files, which do not grow; add text with `schedule add`.")
    notes = [f"{source.path}: is not here any more; what was read of it stays." for source in gone]
    dataset, named, files = open_dataset(recipe.data), list[SourceConfig](), 0
    for source in folders:
        piece = _piece(source, config, recipe, dataset, named, settle_s, now(), notes)
        if piece is None:
            continue
        both = _built(piece, config, recipe, dataset, progress, notes)
        if both is not None:
            dataset, files = both, files + len(piece.files)
            named.append(piece.source)
    added = append(run, dataset, named, parts=parts) if named else ()
    return Grown(added=added, files=files, notes=tuple(notes))


@dataclasses.dataclass(frozen=True)
class _Piece:
    source: SourceConfig
    growth: Growth

    @property
    def files(self) -> tuple[str, ...]:
        return self.source.files


def _piece(
    source: SourceConfig,
    config: Config,
    recipe: Recipe,
    dataset: Dataset,
    named: Sequence[SourceConfig],
    settle_s: float,
    now_s: float,
    notes: list[str],
) -> _Piece | None:
    """The new files of a folder as a source; None where there are none."""
    try:
        resolved = resolve(source, base=Path.cwd())
        known = _known(source, resolved.name, config, dataset)
        found = look(source, known, base=Path.cwd(), now_s=now_s, settle_s=settle_s)
    except DataError as error:
        if isinstance(error, _Unknown):
            raise
        notes.append(f"{str(error).rstrip('.')}; what was read of it stays.")
        return None
    notes += _told(source.path, found)
    if not found.new:
        return None
    taken = {*recipe.data.weights, *(each.name for each in (*config.data.sources, *named))}
    form = source.format if resolved.format == "mixed" else resolved.format
    files = tuple(entry.relative for entry in found.new)
    named_piece = dataclasses.replace(source, name=_free(resolved.name, taken), format=form, files=files)
    return _Piece(named_piece, found)


class _Unknown(DataError):
    """What was read is not told by the dataset."""


def _known(source: SourceConfig, name: str, config: Config, dataset: Dataset) -> dict[str, tuple[int, int, str]]:
    """All that was read of a folder: at first, and as pieces since."""
    found: dict[str, tuple[int, int, str]] = {}
    place = os.path.realpath(source.path)
    pieces = [each.name for each in config.data.sources if each.files and os.path.realpath(each.path) == place]
    for each in (name, *pieces):
        files = known_files(dataset, each)
        if files is None:
            raise _Unknown(
                f"{dataset.folder}: does not tell which files '{each}' was read from, as it was copied here or built "
                "by an earlier version; add new text with `ondevice schedule add`."
            )
        found |= files
    return found


def _told(path: str, found: Growth) -> Iterator[str]:
    if found.waiting:
        yield f"{path}: {_some(found.waiting)} may still be written to; left for the next look."
    if found.changed:
        yield f"{path}: {_some(found.changed)} changed since it was read; what was read stays, no change is learned."
    if found.vanished:
        yield f"{path}: {_some(found.vanished)} went away since it was read; what was read stays."


def _some(names: Sequence[str]) -> str:
    """
    >>> _some(["a.txt", "b.txt"])
    'a.txt, b.txt'
    """
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _free(name: str, taken: set[str]) -> str:
    """The first of name-2, name-3 ... that is free, also of sources that stand for the languages of its code."""
    names = (f"{name[:58]}-{number}" for number in itertools.count(2))
    return next(each for each in names if not any(one == each or one.startswith(f"{each}.") for one in taken))


def _built(
    piece: _Piece, config: Config, recipe: Recipe, dataset: Dataset, progress: Progress | None, notes: list[str]
) -> Dataset | None:
    """The dataset with the piece beside it; None, and a note, where it is too little, damaged or not at rest."""
    source, base = piece.source, Path.cwd()
    step = recipe.train.batch * recipe.model.context + 1
    data = dataclasses.replace(config.data, sources=(source,))
    try:
        both = build_beside(dataset, data, base=base, least_tokens=step, progress=progress)
    except DataError as error:
        notes.append(f"{str(error).rstrip('.')}; left for the next look.")
        return None
    if both is None:
        count = f"{len(piece.files):,} new file{'s' * (len(piece.files) > 1)}"
        notes.append(
            f"{source.path}: {count} with less new text than a step learns from ({step:,} tokens); waiting for more."
        )
        return None
    if not stayed(source, piece.growth.new, base=base):
        notes.append(f"{source.path}: changed while it was read; left for the next look.")
        return None
    return both
