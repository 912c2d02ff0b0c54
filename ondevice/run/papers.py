"""What a run was begun with, and the hashes that prove it: config, recipe, first fit, tokenizer, kept tokens,
environment, command.

``run.json`` holds them, sealed. A fork's identity also holds its parent and a hash over it, so that the ancestors of a
run form a chain.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from ondevice.errors import DataError
from ondevice.run.directory import RunDir
from ondevice.run.files import json_bytes, open_regular, sha256_of_open

__all__ = ["changed_papers", "environment", "lineage_of", "paper_faults", "paper_hashes", "paper_sha256"]

_PACKAGES = ("torch", "numpy", "tokenizers", "sentencepiece")


def paper_hashes(run: RunDir) -> dict[str, str]:
    """SHA-256 of every paper, by its path inside the run. Raises DataError."""
    papers = [run.config, run.recipe, run.fit, *(path for path in (run.vocabulary, run.put_aside) if path.exists())]
    if run.tokenizer.is_dir():
        papers += sorted(path for path in run.tokenizer.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(run.path).as_posix(): paper_sha256(path) for path in papers}


def paper_sha256(path: Path) -> str:
    """Raises DataError when the file is missing, a link, or cannot be read."""
    try:
        with open_regular(path) as file:
            return sha256_of_open(file)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def changed_papers(run: RunDir, identity: dict[str, Any]) -> list[str]:
    """One sentence for each paper that is not what ``run.json`` says it was. A run of layout 1 states none."""
    return list(paper_faults(run, identity).values())


def paper_faults(run: RunDir, identity: dict[str, Any]) -> dict[str, str]:
    """`changed_papers` by the name of the paper."""
    faults = {}
    papers = identity.get("papers")
    for name, expected in papers.items() if isinstance(papers, dict) else ():
        path = run.path / name
        if os.path.isabs(name) or ".." in Path(name).parts:
            faults[name] = f"{run.identity}: names a file outside the run ({name!r})."
            continue
        try:
            found = paper_sha256(path)
        except DataError as error:
            faults[name] = str(error)
            continue
        if found != expected:
            faults[name] = f"{path}: changed since the run was made (hash differs)."
    return faults


def environment() -> dict[str, Any]:
    """The software a command runs with. Imports none of it."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def lineage_of(parent: dict[str, Any] | None) -> str | None:
    """Hash over a parent (run, id, step, hashes, and the parent's own lineage); None for a run without one."""
    if parent is None:
        return None
    return hashlib.sha256(json_bytes(dict(sorted(parent.items())))).hexdigest()
