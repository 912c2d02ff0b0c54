"""The checkpoint store: a checkpoint exists if and only if its manifest verifies.

Committed by the trainer: files are written in full and fsynced in ``.tmp-<step>-<pid>``, the sealed manifest with
their hashes last, then the folder is renamed and its parent fsynced. Pruned manifest-first. Bytes and hashes only;
what is inside the files is the business of ``ondevice.train.checkpoint``.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import CheckpointError, DataError, ResourceError
from ondevice.run.files import (
    HashedFile,
    fsync_folder,
    make_folder,
    open_regular,
    read_sealed,
    remove_temporary,
    sealed_bytes,
    sha256_of_open,
    write_sealed,
)

__all__ = ["MANIFEST_VERSION", "PINS_VERSION", "Checkpoint", "Draft", "Store", "steps_to_keep"]

MANIFEST_VERSION = 1
PINS_VERSION = 1
_MANIFEST = "manifest.json"
_FOLDER = re.compile(r"step-([0-9]{8,18})")
_FILE = re.compile(r"(?!manifest\.json)[a-z0-9_]{1,64}\.(safetensors|json)")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint. ``sha256`` is its manifest's hash and so stands for every byte of it."""

    path: Path
    step: int
    manifest: dict[str, Any]
    sha256: str

    @property
    def facts(self) -> dict[str, Any]:
        """What the trainer stated about itself when it saved."""
        facts: dict[str, Any] = self.manifest["facts"]
        return facts


class Draft:
    """A checkpoint being written; becomes real in `commit`, vanishes in `abandon`."""

    def __init__(self, store: Store, step: int) -> None:
        self._store, self._step = store, step
        self._path = store.folder / f".tmp-{step}-{os.getpid()}"
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir(mode=0o700)
        self._files: dict[str, dict[str, Any]] = {}

    @contextmanager
    def file(self, name: str) -> Iterator[HashedFile]:
        """A file of the checkpoint, durable and hashed when the block ends."""
        assert _FILE.fullmatch(name), name
        hashed = HashedFile(self._path / name)
        try:
            yield hashed
        except BaseException:
            hashed.close(durable=False)
            raise
        hashed.close()
        self._files[name] = {"bytes": hashed.size, "sha256": hashed.sha256}

    def commit(self, facts: dict[str, Any]) -> Checkpoint:
        """Writes the manifest and renames the folder; after this returns the checkpoint survives a power cut.

        An intact checkpoint of the same step is given back instead: it is never deleted for its own successor.
        """
        target = self._store.path(self._step)
        if os.path.lexists(target):
            with suppress(CheckpointError):
                existing = self._store.open(self._step)
                fsync_folder(self._store.folder)
                return existing
            remove_checkpoint(target)
        manifest = {"v": MANIFEST_VERSION, "step": self._step, "files": self._files, "facts": facts}
        with self._manifest_file() as file:
            file.write(sealed_bytes(manifest))
        fsync_folder(self._path)
        self._path.rename(target)
        fsync_folder(self._store.folder)
        return Checkpoint(target, self._step, manifest, file.sha256)

    @contextmanager
    def _manifest_file(self) -> Iterator[HashedFile]:
        file = HashedFile(self._path / _MANIFEST)
        try:
            yield file
        except BaseException:
            file.close(durable=False)
            raise
        file.close()

    def abandon(self) -> None:
        """Removes the draft; does nothing after a commit."""
        shutil.rmtree(self._path, ignore_errors=True)


class Store:
    """The checkpoints of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        """Steps that have a manifest, oldest first; whether it verifies is not known yet. Raises CheckpointError."""
        found = [(_step_of(path), path) for path in self._entries()]
        return sorted(step for step, path in found if step is not None and os.path.isfile(path / _MANIFEST))

    def _entries(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"{self.folder}: cannot be read ({error.strerror}).") from error

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies, whether it exists or not."""
        return self.folder / f"step-{step:08d}"

    def open(self, step: int) -> Checkpoint:
        """The checkpoint of a step after reading back every byte. Raises CheckpointError naming the damaged file."""
        path = self.path(step)
        if path.is_symlink():
            raise CheckpointError(f"{path}: is a symbolic link; a checkpoint must lie inside its run.")
        try:
            manifest = read_sealed(path / _MANIFEST, version=MANIFEST_VERSION)
        except DataError as error:
            raise CheckpointError(str(error)) from error
        if not isinstance(manifest.get("files"), dict) or not isinstance(manifest.get("facts"), dict):
            raise CheckpointError(f"{path / _MANIFEST}: not a manifest.")
        if manifest.get("step") != step:
            raise CheckpointError(f"{path / _MANIFEST}: is of step {manifest.get('step')}, not {step}.")
        for name, entry in manifest["files"].items():
            _verify_file(path, name, entry)
        return Checkpoint(path, step, manifest, hashlib.sha256(sealed_bytes(manifest)).hexdigest())

    def latest(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that verifies, and one sentence for each newer one that does not."""
        damage: list[str] = []
        for step in reversed(self.steps()):
            try:
                return self.open(step), damage
            except CheckpointError as error:
                damage.append(str(error))
        return None, damage

    @contextmanager
    def draft(self, step: int) -> Iterator[Draft]:
        """A draft that is abandoned unless the block commits it.

        A full disk or a failed write becomes ResourceError; older checkpoints stay as they are.
        """
        with _failure_explained(self.folder):
            make_folder(self.folder)
            self.sweep()
            draft = Draft(self, step)
            try:
                yield draft
            finally:
                draft.abandon()

    def sweep(self) -> None:
        """Removes what an interrupted save or prune left; only for the holder of the run's lock."""
        for path in self._entries():
            unfinished = path.name.startswith(".tmp-")
            pruned = _FOLDER.fullmatch(path.name) and not os.path.lexists(path / _MANIFEST)
            if unfinished or pruned:
                shutil.rmtree(path, ignore_errors=True)
        remove_temporary(self.folder)

    def pins(self) -> dict[int, str]:
        """Steps that are never pruned, with the reason each was pinned for.

        Raises CheckpointError when they cannot be known, so that nothing is pruned by mistake.
        """
        path = self.folder / "pins.json"
        if not os.path.lexists(path):
            return {}
        try:
            raw = read_sealed(path, version=PINS_VERSION)
            return {int(step): str(reason) for step, reason in raw["pins"].items()}
        except (DataError, AttributeError, KeyError, ValueError) as error:
            reason = str(error) if isinstance(error, DataError) else f"{path}: not a list of pins."
            raise CheckpointError(f"{reason} Restore it from a copy, or delete it to unpin every step.") from error

    def pin(self, step: int, reason: str | None) -> None:
        """Pins a step, or unpins it with ``None``.

        Raises CheckpointError where there is no such checkpoint, ResourceError on a full disk.
        """
        pins: dict[int, str | None] = {**self.pins()}
        if step not in self.steps() and not (reason is None and step in pins):
            known = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(f"{self.folder}: no checkpoint of step {step}; there are: {known}.")
        pins[step] = reason
        kept = {str(key): value for key, value in sorted(pins.items()) if value is not None}
        write_sealed(self.folder / "pins.json", {"v": PINS_VERSION, "pins": kept})

    @contextmanager
    def lease(self, step: int) -> Iterator[Checkpoint]:
        """A verified checkpoint that pruning leaves alone until the block ends. Raises CheckpointError."""
        try:
            fd = os.open(self.path(step) / _MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CheckpointError(f"{self.folder}: no checkpoint of step {step}.") from error
        try:
            _lock_shared(fd, self.path(step))
            yield self.open(step)  # fails where pruning was faster than the lock
        finally:
            os.close(fd)

    def prune(self, keep: Iterable[int]) -> list[int]:
        """Removes every checkpoint not in ``keep``, oldest first, except leased ones. Gives the removed steps.

        One that the system will not delete now is left for the next time.
        """
        kept = set(keep)
        return [step for step in self.steps() if step not in kept and self._remove_unleased(step)]

    def _remove_unleased(self, step: int) -> bool:
        """Deletes while holding the manifest's lock, so that no lease begins on a checkpoint that is going."""
        try:
            fd = os.open(self.path(step) / _MANIFEST, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_checkpoint(self.path(step))
        except OSError:
            return not os.path.lexists(self.path(step) / _MANIFEST)
        finally:
            os.close(fd)
        return True


def remove_checkpoint(path: Path) -> None:
    """Deletes a checkpoint manifest-first, so that at no instant a half-deleted one looks whole. Raises OSError."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        (path / _MANIFEST).unlink(missing_ok=True)
        fsync_folder(path)
        shutil.rmtree(path)
    fsync_folder(path.parent)


def _step_of(path: Path) -> int | None:
    """The step a folder is named for; None for other names, links, and names that we would write differently."""
    match = _FOLDER.fullmatch(path.name)
    if match is None or path.is_symlink() or path.name != f"step-{int(match[1]):08d}":
        return None
    return int(match[1])


def _lock_shared(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be locked for reading ({error.strerror}).") from error


def _verify_file(path: Path, name: str, entry: Any) -> None:
    if not _FILE.fullmatch(name) or not isinstance(entry, dict):
        raise CheckpointError(f"{path / _MANIFEST}: names a file that no checkpoint has ({name!r}).")
    file = path / name
    try:
        with open_regular(file) as opened:
            if os.fstat(opened.fileno()).st_size != entry.get("bytes"):
                raise CheckpointError(f"{file}: wrong size, the file is damaged.")
            if sha256_of_open(opened) != entry.get("sha256"):
                raise CheckpointError(f"{file}: its content changed since it was saved (hash differs).")
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}).") from error


@contextmanager
def _failure_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ResourceError(
                f"{folder}: the disk is full, no checkpoint was written; free some space, older checkpoints are "
                "untouched."
            ) from error
        raise ResourceError(
            f"{folder}: no checkpoint was written ({error.strerror or error}); older checkpoints are untouched."
        ) from error


def steps_to_keep(steps: Iterable[int], *, keep_last: int, pins: Iterable[int], best: int | None) -> set[int]:
    """Which checkpoints survive: the newest ``keep_last`` (at least two), the pinned and the best by loss."""
    ordered = sorted(steps)
    keep = set(ordered[-max(2, keep_last) :]) | (set(pins) & set(ordered))
    return keep | ({best} if best in ordered else set())
