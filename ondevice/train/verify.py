"""Re-checks a run with everything it depends on: its folder, the tokens it learns from, the exports made of it.

No torch, no lock, nothing written. ``ondevice.train.replay`` goes further and does steps again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ondevice.data.chunks import verify_chunk
from ondevice.data.cursor import BatchCursor
from ondevice.data.dataset import Dataset
from ondevice.data.parcel import dataset_places, open_dataset
from ondevice.data.tokenizer import load_tokenizer
from ondevice.errors import DataError, DeviceError, OndeviceError
from ondevice.infer.export_folder import EXPORT_FILE, ExportFolder
from ondevice.run.directory import RunDir, home
from ondevice.run.finding import Finding, damage, note, ok
from ondevice.run.recipe import Recipe
from ondevice.run.revision import newest_config
from ondevice.run.verify import verify_folder
from ondevice.run.verify_papers import readable_recipe

__all__ = ["verify_run"]


def verify_run(run: RunDir) -> list[Finding]:
    """Everything of a run. Reads every byte of it and of its dataset once."""
    return [*verify_folder(run), *_data(run), *_exports(run)]


def _data(run: RunDir) -> Iterator[Finding]:
    recipe = readable_recipe(run)
    if recipe is None:
        yield note("", "the data was not re-checked: recipe.json names it and cannot be read")
        return
    yield from _own_tokenizer(run, recipe)
    places = dataset_places(home() / "datasets", recipe.data.dataset, recipe.data.dataset_sha256)
    if not any(place.is_dir() for place in places):
        remedy = f"Training needs it: {_build(run)}, from the same text."
        yield note(str(places[0]), "the dataset is not on this machine", remedy)
        return
    try:
        dataset = open_dataset(recipe.data)
    except DataError as error:
        yield damage(*_split(error, places[0]), f"{_build(run)}, from the same text.")
        return
    yield from _chunks(run, dataset)
    yield from _dataset_tokenizer(run, dataset, recipe)
    yield from _order(dataset, recipe)


def _build(run: RunDir) -> str:
    with suppress(OndeviceError):
        return f"`ondevice data build {newest_config(run)}` makes it again"
    return f"`ondevice data build {run.config}` makes it again"


def _split(error: OndeviceError, place: Path) -> tuple[str, str]:
    """The file and the words of an error that names its file first; without its advice."""
    file, colon, words = str(error).partition(": ")
    if not colon or not file.startswith("/"):
        file, words = str(place), str(error)
    return file, words.split("; ")[0].rstrip(".")


def _chunks(run: RunDir, dataset: Dataset) -> Iterator[Finding]:
    sound, chunks = 0, dataset.manifest["chunks"]
    for chunk in chunks:
        path = dataset.folder / chunk["file"]
        try:
            same = verify_chunk(path).sha256 == chunk["sha256"]
        except OndeviceError as error:
            yield damage(*_split(error, path), f"{_build(run)}, from the same text.")
            continue
        sound += same
        if not same:
            yield damage(str(path), "not the chunk of this dataset", f"{_build(run)}, from the same text.")
    if sound == len(chunks):
        yield ok(str(dataset.folder), f"{sound} chunks, every byte as built")


def _own_tokenizer(run: RunDir, recipe: Recipe) -> Iterator[Finding]:
    try:
        found = load_tokenizer(run.tokenizer).sha256
    except DeviceError as error:
        yield note("tokenizer", f"not loaded: {str(error).rstrip('.')}")
        return
    except OndeviceError as error:
        yield damage("tokenizer", _split(error, run.tokenizer)[1], f"`ondevice doctor {run.name}` restores it.")
        return
    if found != recipe.data.tokenizer_sha256:
        yield damage("tokenizer", "not the one of the recipe", f"`ondevice doctor {run.name}` restores it.")
    else:
        yield ok("tokenizer", "the one of the recipe")


def _dataset_tokenizer(run: RunDir, dataset: Dataset, recipe: Recipe) -> Iterator[Finding]:
    try:
        found = dataset.tokenizer().sha256
    except DeviceError:
        return  # said of the run's own
    except DataError as error:
        yield damage(*_split(error, dataset.folder), f"{_build(run)}, from the same text.")
        return
    if found != recipe.data.tokenizer_sha256:
        yield damage(str(dataset.folder), "its tokenizer is not the one of the recipe", f"{_build(run)}.")


def _order(dataset: Dataset, recipe: Recipe) -> Iterator[Finding]:
    """Whether the dataset still gives its windows in the order that the recipe recorded."""
    data = recipe.data
    try:
        cursor = BatchCursor.of(dataset, data, context=recipe.model.context, batch=recipe.train.batch)
    except OndeviceError as error:
        yield damage(str(dataset.folder), str(error).rstrip("."))
        return
    if cursor.order_sha256 != data.order_sha256:
        yield damage(str(dataset.folder), "gives another order than the recipe recorded", "Update ondevice back.")
    else:
        yield ok(str(dataset.folder), f"the order of the recipe, {data.order_sha256[:16]}")


def _exports(run: RunDir) -> Iterator[Finding]:
    for folder in sorted(path.parent for path in run.exports.glob(f"*/{EXPORT_FILE}")):
        name = folder.relative_to(run.path).as_posix()
        if folder.name.startswith(".tmp-"):
            continue
        try:
            ExportFolder.open(folder, verify=True)
        except OndeviceError as error:
            yield damage(name, _split(error, folder)[1], f"`ondevice export {run.name} --overwrite` makes it again.")
            continue
        yield ok(name, "every file as exported")
