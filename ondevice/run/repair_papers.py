"""Mends papers: a lost or changed one is looked for elsewhere in the run, and believed only if its hash is right."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ondevice.errors import OndeviceError
from ondevice.run.directory import RunDir, home, list_runs
from ondevice.run.files import json_bytes, make_folder, read_regular, write_atomic, write_error, write_sealed
from ondevice.run.manifest import read_manifest
from ondevice.run.papers import paper_faults
from ondevice.run.revision import complete, extends, is_unfinished
from ondevice.run.store import Store
from ondevice.run.verify_papers import stated_identity
from ondevice.run.verify_story import launch_records, read_story

__all__ = ["mend_identity", "mend_papers"]

_LARGEST = 1 << 27  # bytes of a tokenizer's file
Done = Iterator[tuple[str, str]]


def mend_identity(run: RunDir, dry: bool) -> Done:
    """``run.json`` from the newest launch record that holds it, where it cannot be read or is another run's."""
    stated = stated_identity(run)
    if stated is None or not _is_wrong(run, stated):
        return
    if not dry:
        write_sealed(run.identity, {key: value for key, value in stated.items() if key != "sha256"})
    yield "run.json", "restored from the record of the newest launch"


def _is_wrong(run: RunDir, stated: dict[str, Any]) -> bool:
    try:
        found = run.read_identity()
    except OndeviceError:
        return True
    same = all(found.get(key) == stated.get(key) for key in ("id", "lineage"))
    same = same and (found.get("papers") == stated.get("papers") or extends(found.get("papers"), stated.get("papers")))
    return not same and found["layout"] == stated.get("layout") and read_story(run).whole


def mend_papers(run: RunDir, dry: bool) -> Done:
    """Config, recipe, fit, tokenizer and kept tokens, where something with the right hash is left."""
    identity = _identity(run)
    if identity and is_unfinished(run, identity):
        if not dry:
            complete(run)
            identity = _identity(run)
        yield "run.json", "a revision of the recipe that a crash interrupted is complete"
    for name in paper_faults(run, identity):
        expected = identity["papers"][name]
        for data, source in _candidates(run, name):
            if hashlib.sha256(data).hexdigest() == expected:
                if not dry:
                    _put(run.path / name, data)
                yield name, f"restored from {source}"
                break


def _identity(run: RunDir) -> dict[str, Any]:
    """``run.json``; where it is wrong, as in a dry run, what it would be restored to."""
    stated = stated_identity(run)
    if stated is not None and _is_wrong(run, stated):
        return stated
    try:
        return run.read_identity()
    except OndeviceError:
        return {}


def _put(path: Path, data: bytes) -> None:
    try:
        make_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    write_atomic(path, data)


def _candidates(run: RunDir, name: str) -> Iterator[tuple[bytes, str]]:
    """Bytes that a paper may have had, and where they were found."""
    if name == "config.toml":
        for record in launch_records(run):
            yield str(record.get("config")).encode("utf-8", "replace"), f"the record of launch {record.get('launch')}"
    elif name.startswith("recipe"):
        for step, state in _states(run):
            yield json_bytes(state.get("recipe"), indent=1), f"the checkpoint of step {step}"
    elif name == "fit.json":
        for record in launch_records(run):
            fit, measured = record.get("fit"), record.get("measured")
            first = {**fit, "measured": measured} if measured and isinstance(fit, dict) else fit
            yield json_bytes(first, indent=1), f"the record of launch {record.get('launch')}"
        for step, facts in _facts(run):
            yield json_bytes(facts.get("fit"), indent=1), f"the checkpoint of step {step}"
    elif name.startswith("tokenizer/"):
        for folder in _tokenizers(run):
            yield from _file(folder / name.removeprefix("tokenizer/"))
    elif name == run.vocabulary.name:
        for other in list_runs():
            yield from _file(other.vocabulary)


def _facts(run: RunDir) -> Iterator[tuple[int, dict[str, Any]]]:
    store = Store(run.checkpoints)
    for step in reversed(store.steps()):
        try:
            yield step, store.peek(step).facts
        except OndeviceError:
            continue


def _states(run: RunDir) -> Iterator[tuple[int, dict[str, Any]]]:
    """The ``state.json`` of checkpoints, newest first; what it says is proved by the hash of the paper."""
    store = Store(run.checkpoints)
    for step in reversed(store.steps()):
        try:
            checkpoint = read_manifest(store.path(step), step)
            state = json.loads(read_regular(checkpoint.path / "state.json", limit=_LARGEST))
        except (OndeviceError, OSError, ValueError, RecursionError):
            continue
        if isinstance(state, dict):
            yield step, state


def _tokenizers(run: RunDir) -> Iterator[Path]:
    """Folders that may hold the same tokenizer: of exports, of datasets, of other runs."""
    yield from sorted(path for path in run.exports.glob("*") if path.is_dir())
    yield from sorted((home() / "datasets").glob("*/tokenizer-*"))
    yield from (other.tokenizer for other in list_runs() if other.path != run.path)


def _file(path: Path) -> Iterator[tuple[bytes, str]]:
    try:
        yield read_regular(path, limit=_LARGEST), str(path)
    except OSError:
        return
