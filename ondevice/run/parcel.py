"""What a packed run consists of, and how a staged one becomes a run: between the paths of a run and those of a pack."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ondevice.errors import CheckpointError, DataError, RunBusy, UsageError
from ondevice.run.arrival import tell_arrival
from ondevice.run.audit import audit_file
from ondevice.run.directory import RunDir
from ondevice.run.files import fsync_folder, make_folder, write_error
from ondevice.run.papers import changed_papers
from ondevice.run.store import Store
from ondevice.run.telemetry import launch_files

__all__ = ["Listed", "check_staged", "install", "refused_for_good", "run_files", "staging"]

_PAPERS = ("run.json", "config.toml", "recipe.json", "fit.json", "limits.json")
_PARTS = {*_PAPERS, "tokenizer", "checkpoints", "telemetry", "evals", "exports"}
_STAGING = ".ondevice-unpack-"
_ABANDONED_S = 7 * 86_400.0

Listed = list[tuple[str, Path, int | None]]


def run_files(run: RunDir, steps: Iterable[int], *, results: bool = True) -> Listed:
    """The files of a run as (name in the pack, path, bytes to take): papers, story, these checkpoints, and with
    ``results`` its evaluations and exports. The present tense (status, letters, locks) and what was felt of this
    device's heat stay at home.

    The caller holds leases on the checkpoints; of a story that goes on, the whole lines so far are taken.
    Raises DataError, also where a paper is not what it was: nobody would unpack that.
    """
    if faults := changed_papers(run, run.read_identity()):
        raise DataError(f"{faults[0].rstrip('.')}; repair it with `ondevice doctor {run.name}`, then pack.")
    paths = [
        run.identity,
        run.config,
        run.recipe,
        run.fit,
        run.vocabulary,
        run.put_aside,
        run.limits,
        run.checkpoints / "pins.json",
    ]
    paths += sorted([*run.path.glob("recipe-*.json"), *run.path.glob("config-*.toml")])  # of a chain's revisions
    paths += _below(run.tokenizer)
    for step in steps:
        paths += _below(Store(run.checkpoints).path(step))
    for folder in (run.evals, run.exports) if results else ():
        paths += _below(folder)
    listed: Listed = [(_name(run, path), path, None) for path in paths if path.is_file() and not path.is_symlink()]
    return listed + [(_name(run, path), path, size) for path, size in _story(run)]


def _story(run: RunDir) -> list[tuple[Path, int | None]]:
    """Finished files whole, the newest to its last whole line; a damaged one whole, so that nothing more is lost."""
    files = launch_files(run.telemetry)
    if not files:
        return []
    audit = audit_file(files[-1])
    return [*((path, None) for path in files[:-1]), (files[-1], None if audit.faults else audit.bytes)]


def _name(run: RunDir, path: Path) -> str:
    return f"run/{path.relative_to(run.path).as_posix()}"


def _below(folder: Path) -> list[Path]:
    """Files below a folder in a fixed order; hidden (such as unfinished) and linked ones are not ours."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A staging folder that only one unpack uses at a time; kept if the block fails. Raises RunBusy."""
    _remove_abandoned(folder)
    try:
        make_folder(folder)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise write_error(folder, error) from error
    try:
        with suppress(OSError):  # a file system without locks: then two at once are the person's care
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunBusy(f"{folder}: another unpack of this file is at work; wait for it.") from error
        yield folder
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(fd)


def _remove_abandoned(folder: Path) -> None:
    """What an unpack that nobody repeated left a week ago."""
    for path in folder.parent.glob(f"{_STAGING}*"):
        with suppress(OSError):
            if path != folder and time.time() - path.lstat().st_mtime > _ABANDONED_S:
                shutil.rmtree(path)


@contextmanager
def refused_for_good(folder: Path) -> Iterator[None]:
    """Deletes what was staged where the block refuses it: every byte was as packed, so repeating would not help."""
    try:
        yield
    except (DataError, CheckpointError):
        shutil.rmtree(folder, ignore_errors=True)
        raise


def check_staged(run: RunDir, about: dict[str, Any]) -> None:
    """Refuses a staged run that is not what its pack says, or not whole. Raises DataError or CheckpointError."""
    try:
        identity = run.read_identity()
        faults = changed_papers(run, identity)
        recipe = run.read_recipe()
    except DataError as error:
        raise DataError(f"The pack holds no whole run: {error}") from error
    if (
        not isinstance(identity.get("id"), str)
        or identity["id"] != about.get("id")
        or recipe.sha256 != about.get("recipe_sha256")
    ):
        faults.append("its papers are of another run than it says.")
    known = {*_PARTS, *(identity.get("papers") or ())}
    faults += [f"{name}: no part of a run." for name in sorted(os.listdir(run.path)) if name not in known]
    for step in Store(run.checkpoints).steps():
        try:
            Store(run.checkpoints).open(step)
        except CheckpointError as error:
            faults.append(str(error))
    if faults:
        raise DataError(f"The pack holds no whole run: {faults[0]}")


def install(staged: RunDir, target: Path) -> RunDir:
    """Makes a staged run a run, in one instant; its story says that it arrived. Raises UsageError when the name is
    taken."""
    for folder in (staged.telemetry, staged.checkpoints, staged.inbox, staged.evals, staged.exports, staged.logs):
        make_folder(folder)
    tell_arrival(staged)
    os.chmod(staged.path, 0o700)
    fsync_folder(staged.path)
    if os.path.lexists(target):
        raise UsageError(f"{target}: a run of this name exists; unpack under another with --name.")
    try:
        staged.path.rename(target)
        fsync_folder(target.parent)
    except OSError as error:
        raise write_error(target, error) from error
    return RunDir(target)
