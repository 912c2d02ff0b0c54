"""A dataset on the way to another machine: which files it consists of, and where a copy that arrived is put.

A copy keeps its name where that is free or holds the same tokens; else it stands beside under a name with its hash,
where `open_dataset` finds it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from ondevice.data.dataset import MANIFEST, USE_LOCK, Dataset, manifest_path
from ondevice.data.scores import score_files
from ondevice.errors import DataError, UsageError, nearest
from ondevice.run.directory import RunDir, home
from ondevice.run.files import fsync_folder, read_json, write_error
from ondevice.run.pack import is_member_name
from ondevice.run.recipe import DataRecipe

__all__ = ["adopt_dataset", "dataset_files", "dataset_places", "named_dataset", "open_dataset"]

_LONGEST_NAME = 1000  # letters, folders included


def dataset_files(dataset: Dataset) -> list[tuple[str, Path, int | None]]:
    """The files of a dataset as (name in the pack, path, None for all of it), in a fixed order."""
    folder, manifest = dataset.folder, dataset.manifest
    names = [entry["file"] for entry in (*manifest["chunks"], *score_files(manifest["sources"]))]
    tokenizer = folder / manifest["tokenizer"]["folder"]
    names += sorted(path.relative_to(folder).as_posix() for path in tokenizer.rglob("*") if path.is_file())
    listed: list[tuple[str, Path, int | None]] = [(f"data/{name}", folder / name, None) for name in names]
    return [*listed, (f"data/{MANIFEST}", manifest_path(folder, dataset.sha256), None)]


def open_dataset(data: DataRecipe) -> Dataset:
    """The dataset of a recipe, here. Raises DataError when it is gone or no longer the same."""
    places = dataset_places(home() / "datasets", data.dataset, data.dataset_sha256)
    found = [Dataset.open(place, sha256=data.dataset_sha256) for place in places if (place / MANIFEST).exists()]
    dataset = next((dataset for dataset in found if dataset.sha256 == data.dataset_sha256), None)
    if dataset is not None:
        return dataset
    if not found:
        raise DataError(
            f"{places[0]}: the dataset of this run is not here; `ondevice data build` with the config.toml in the "
            "run's folder makes it again from the same text."
        )
    raise DataError(
        f"{found[0].folder}: the dataset changed since this run began, so it cannot go on exactly; start a new run "
        "with another --name, or put the old text back and repeat `ondevice data build`."
    )


def named_dataset(name: str) -> Dataset:
    """The dataset of that name here or at that path, or that of a run. Raises UsageError for none, DataError for one
    that is gone or damaged."""
    root, path = home() / "datasets", Path(os.path.expanduser(name))
    for folder in (root / name, path):
        if (folder / MANIFEST).is_file():
            return Dataset.open(folder)
    for run in (RunDir(home() / "runs" / name), RunDir(path.absolute())) if name.strip() else ():
        if run.identity.is_file():
            return open_dataset(run.read_recipe().data)
    known = sorted(each.parent.name for each in root.glob(f"*/{MANIFEST}"))
    listed = ", ".join(known) or "none yet; make one with `ondevice data build`"
    raise UsageError(f"{name}: no such dataset or run{nearest(name, known)}; datasets: {listed}.")


def dataset_places(datasets: Path, name: str, sha256: str) -> list[Path]:
    """Where the dataset of a recipe may lie: where it was made, under its name here, or beside another of that name.

    Raises DataError for what no dataset is called; the recipe may be a stranger's.
    """
    if not _is_name(name) or not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise DataError(f"{str(name)[:80]!r}: no dataset is called that; the recipe that names it is not sound.")
    here = datasets / Path(name).name
    made = Path(name) if os.path.isabs(name) else here
    return list(dict.fromkeys([made, here, here.with_name(f"{here.name}-{sha256[:8]}")]))


def _is_name(name: object) -> bool:
    if not isinstance(name, str) or "\0" in name or len(name) > _LONGEST_NAME:
        return False
    return Path(name).name not in ("", "..")


def adopt_dataset(staged: Path, datasets: Path, name: str, sha256: str) -> tuple[Path, bool]:
    """Puts a staged dataset in its place and verifies it; gives where, and whether it was put there now.

    Raises DataError when it is not the dataset it should be.
    """
    for place in dataset_places(datasets, name, sha256):
        if _holds(place, sha256):
            return place, False
    _refuse_foreign(staged)
    dataset = Dataset.open(staged)
    dataset.verify()
    if dataset.sha256 != sha256:
        raise DataError(f"{staged}: the pack holds another dataset than its run was trained on.")
    *_, here, beside = [None, *dataset_places(datasets, name, sha256)]
    place = beside if here is None or os.path.lexists(here) else here
    if os.path.lexists(place):
        raise DataError(f"{place}: is in the way and not this dataset; rename it and repeat the command.")
    try:
        datasets.mkdir(mode=0o700, parents=True, exist_ok=True)
        _move(staged, place)
        fsync_folder(datasets)
    except OSError as error:
        raise write_error(place, error) from error
    return place, True


def _move(staged: Path, place: Path) -> None:
    """In one instant, also where the datasets lie on another disk. Raises OSError."""
    try:
        staged.rename(place)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    beside = place.with_name(f".{place.name}.new")
    shutil.rmtree(beside, ignore_errors=True)  # of an unpack that was killed here
    try:
        shutil.copytree(staged, beside)
        for folder, _, names in os.walk(beside):
            for path in [Path(folder, name) for name in names]:
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            fsync_folder(Path(folder))
        beside.rename(place)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def _refuse_foreign(staged: Path) -> None:
    """A manifest that leads out of its folder, and files that it does not name."""
    manifest = read_json(staged / MANIFEST)
    try:
        files = [*manifest["chunks"], *score_files(manifest["sources"])]
        known = {MANIFEST, *(entry["file"] for entry in files)}
        folder = manifest["tokenizer"]["folder"]
        plain = all(isinstance(name, str) and is_member_name(f"data/{name}") for name in (*known, folder))
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{staged / MANIFEST}: not a dataset's manifest.") from error
    found = {path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()}
    foreign = [name for name in sorted(found - known - {USE_LOCK}) if not name.startswith(f"{folder}/")]
    if not plain or foreign:
        raise DataError(f"The pack holds no whole dataset: {foreign[0] if plain else 'it'} is not part of one.")


def _holds(place: Path, sha256: str) -> bool:
    try:
        return Dataset.open(place, sha256=sha256).sha256 == sha256
    except DataError:
        return False
