"""Revisions of a chain's recipe on disk: parts that were not begun yet were changed, and everything before stays.

The old recipe is kept as ``recipe-<n>.json``; ``run.json`` names the hashes of all of them. Three writes, each in one
instant: the copy, the new ``recipe.json``, ``run.json``. Before the second nothing has happened; after it the revision
is decided, and `complete` does the third where a crash came between. The caller holds the run's lock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ondevice.errors import CheckpointError, DataError, OndeviceError
from ondevice.run.directory import RunDir
from ondevice.run.files import json_bytes, read_regular, write_atomic, write_error, write_sealed
from ondevice.run.recipe import Recipe

__all__ = ["complete", "extends", "is_unfinished", "newest_config", "revise"]

_LARGEST = 1 << 27


def revise(run: RunDir, recipe: Recipe, *, config_toml: str | None = None) -> None:
    """Makes ``recipe``, which names the present one as its last revision, the recipe of the run. ``config_toml``: the
    wish that belongs to it, kept where it is another than before. Raises DataError, ResourceError."""
    before = run.read_recipe()
    if recipe.revises != (*before.revises, before.sha256):
        raise CheckpointError(f"{run.recipe}: changed meanwhile; repeat the command.")
    number = len(recipe.revises)
    write_atomic(run.path / f"recipe-{number}.json", _read(run.recipe))
    if config_toml is not None and config_toml.encode() != _read(newest_config(run)):
        write_atomic(run.path / f"config-{number + 1}.toml", config_toml.encode())
    write_atomic(run.recipe, json_bytes(recipe.to_json(), indent=1))
    complete(run)


def complete(run: RunDir) -> bool:
    """Finishes a revision that a crash interrupted; gives whether there was one. Raises DataError, ResourceError."""
    identity = run.read_identity()
    if not is_unfinished(run, identity):
        return False
    number = len(run.read_recipe().revises)
    papers = dict(identity["papers"])
    for name in _revised(number):
        if (run.path / name).is_file():
            papers[name] = _sha256(_read(run.path / name))
    body = {key: value for key, value in identity.items() if key != "sha256"}
    write_sealed(run.identity, {**body, "papers": papers})
    return True


def _revised(number: int) -> tuple[str, ...]:
    return ("recipe.json", f"recipe-{number}.json", f"config-{number + 1}.toml")


def is_unfinished(run: RunDir, identity: Mapping[str, Any]) -> bool:
    """Whether ``recipe.json`` is a sound revision of the one that ``run.json`` names, which was kept."""
    papers = identity.get("papers")
    stated = papers.get("recipe.json") if isinstance(papers, dict) else None
    if stated is None:
        return False
    try:
        data = _read(run.recipe)
        if _sha256(data) == stated:
            return False
        recipe = run.read_recipe()
        kept = _read(run.path / f"recipe-{len(recipe.revises)}.json")
    except OndeviceError:
        return False
    return bool(recipe.revises) and _sha256(kept) == stated and recipe.revises[-1].encode() in kept


def extends(papers: Any, stated: Any) -> bool:
    """Whether these papers are those that were stated, or what revisions made of them since."""
    if not isinstance(papers, dict) or not isinstance(stated, dict):
        return False
    kept = {papers[name] for name in papers if name.startswith("recipe-")}
    added = {name: value for name, value in papers.items() if name not in stated}
    same = all(papers.get(name) == value for name, value in stated.items() if name != "recipe.json")
    recipes = papers.get("recipe.json") == stated.get("recipe.json") or stated.get("recipe.json") in kept
    return same and recipes and all(name.startswith(("recipe-", "config-")) for name in added)


def newest_config(run: RunDir) -> Path:
    """The wish that belongs to the newest revision: ``config.toml``, or that of the last one that added text."""
    papers = run.read_identity().get("papers")
    names = [name for name in papers if name.startswith("config-")] if isinstance(papers, dict) else []
    newest = max(names, key=lambda name: int(name.removeprefix("config-").removesuffix(".toml")), default=None)
    return run.config if newest is None else run.path / newest


def _read(path: Path) -> bytes:
    try:
        return read_regular(path, limit=_LARGEST)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except OSError as error:
        raise write_error(path, error) from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
