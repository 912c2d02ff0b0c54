"""Runs come and go in one instant: made beside and renamed, renamed before they are deleted.

Used by commands, never by the trainer. What the papers say is the business of who calls.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ondevice
from ondevice.errors import DataError, UsageError
from ondevice.run.directory import LAYOUT, RunDir, offline_lock, safe_name
from ondevice.run.files import fsync_folder, make_folder, write_atomic, write_error, write_json, write_sealed
from ondevice.run.papers import environment, lineage_of, paper_hashes
from ondevice.run.recipe import Fit, Recipe

__all__ = ["create_run", "remove_run", "rename_run"]

_ABANDONED_S = 3600.0
_HALF_MADE, _HALF_REMOVED = ".ondevice-new-", ".ondevice-rm-"
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # of a rename onto something that is there


def create_run(
    path: Path,
    *,
    config_toml: str,
    recipe: Recipe,
    fit: Fit,
    save_tokenizer: Callable[[Path], object],
    parent: dict[str, Any] | None = None,
    fill: Callable[[RunDir], object] | None = None,
    measured: dict[str, float] | None = None,
    save_vocabulary: Callable[[RunDir], object] | None = None,
) -> RunDir:
    """Makes a run directory in one instant (built beside, then renamed). Raises UsageError if it exists.

    ``save_tokenizer`` fills the tokenizer's folder, so that a run copied elsewhere can still speak. ``fill`` may put
    more into the new run before anyone sees it, such as a fork's first checkpoint. ``measured``: what a step of the fit
    took, where one was made. ``save_vocabulary`` writes what a trimmed vocabulary keeps.
    """
    if os.path.lexists(path):
        raise _exists(path)
    try:
        make_folder(path.parent)
        _remove_abandoned(path.parent)
        draft = RunDir(path.with_name(f"{_HALF_MADE}{path.name}-{secrets.token_hex(4)}"))
        try:
            fit_json = fit.to_json() if measured is None else {**fit.to_json(), "measured": measured}
            _fill(
                draft,
                config_toml=config_toml,
                recipe=recipe,
                fit=fit_json,
                save_tokenizer=save_tokenizer,
                parent=parent,
                save_vocabulary=save_vocabulary,
            )
            if fill is not None:
                fill(draft)
            draft.path.rename(path)
        except BaseException:
            shutil.rmtree(draft.path, ignore_errors=True)
            raise
        fsync_folder(path.parent)
    except OSError as error:
        raise (_exists(path) if error.errno in _TAKEN else write_error(path, error)) from error
    return RunDir(path)


def _exists(path: Path) -> UsageError:
    if os.path.lexists(path) and not RunDir(path).identity.is_file():
        return UsageError(f"{path}: something that is no run lies there; move it away, or choose another name.")
    return UsageError(f"{path}: a run of this name exists; choose another name or `ondevice runs rm {path.name}`.")


def _fill(
    draft: RunDir,
    *,
    config_toml: str,
    recipe: Recipe,
    fit: dict[str, Any],
    save_tokenizer: Callable[[Path], object],
    parent: dict[str, Any] | None,
    save_vocabulary: Callable[[RunDir], object] | None,
) -> None:
    """Writes a new run's papers, the identity last."""
    draft.path.mkdir(mode=0o700)
    for folder in (draft.telemetry, draft.checkpoints, draft.inbox, draft.evals, draft.exports, draft.logs):
        make_folder(folder)
    write_atomic(draft.config, config_toml.encode())
    write_json(draft.recipe, recipe.to_json())
    write_json(draft.fit, fit)
    save_tokenizer(draft.tokenizer)
    if save_vocabulary is not None:
        save_vocabulary(draft)
    identity = {
        "v": LAYOUT,
        "layout": LAYOUT,
        "id": secrets.token_hex(8),
        "created_t": round(time.time(), 3),
        "code_version": ondevice.__version__,
        "command": sys.argv,
        "environment": environment(),
        "papers": paper_hashes(draft),
        "parent": parent,
        "lineage": lineage_of(parent),
    }
    write_sealed(draft.identity, identity)


def _remove_abandoned(folder: Path) -> None:
    """Deletes what a killed `create_run` or `remove_run` left: half-made runs after an hour, half-removed at once."""
    for path in [*folder.glob(f"{_HALF_REMOVED}*"), *folder.glob(f"{_HALF_MADE}*")]:
        with suppress(OSError):
            age_s = time.time() - path.lstat().st_mtime
            if path.name.startswith(_HALF_REMOVED) or age_s > _ABANDONED_S:
                shutil.rmtree(path, ignore_errors=True)


def remove_run(run: RunDir) -> None:
    """Deletes a run that nobody holds. Raises RunBusy, or DataError when the system will not.

    It is renamed first, so that a half-deleted run is not a run and its name is free.
    """
    going = run.path.with_name(f"{_HALF_REMOVED}{run.name}-{secrets.token_hex(4)}")
    if os.path.islink(run.path):
        raise UsageError(f"{run.path}: is a symbolic link; delete the link and the folder it leads to yourself.")
    with offline_lock(run, what="ondevice runs rm"):
        try:
            run.path.rename(going)
            fsync_folder(going.parent)
            shutil.rmtree(going)
        except OSError as error:
            raise DataError(f"{run.path}: cannot be deleted ({error.strerror or error}).") from error


def rename_run(run: RunDir, name: str) -> RunDir:
    """Gives a run that nobody holds another name. Raises RunBusy, UsageError or DataError."""
    if name != safe_name(name):
        raise UsageError(f"'{name}': use lower case letters, digits, '.', '_' and '-', such as '{safe_name(name)}'.")
    target = run.path.with_name(name)
    taken = UsageError(f"{name}: a run of this name exists; choose another name.")
    if os.path.lexists(target):
        raise taken
    with offline_lock(run, what="ondevice runs rename"):
        try:
            run.path.rename(target)
            fsync_folder(target.parent)
        except OSError as error:
            raise (taken if error.errno in _TAKEN else write_error(target, error)) from error
    return RunDir(target)
