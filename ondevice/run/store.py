"""The checkpoint store: a checkpoint exists if and only if its manifest verifies.

Committed by the trainer: files are written in full and fsynced in ``.tmp-<step>-<pid>``, the manifest with their
hashes last, then the folder is renamed and its parent fsynced. Pruned manifest-first. Bytes and hashes only; what is
inside the files is the business of ``ondevice.train.checkpoint``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ondevice.errors import CheckpointError, DataError, ResourceError
from ondevice.run.files import HashedFile, fsync_folder, read_json, sha256_of, write_json

__all__ = ["MANIFEST_VERSION", "Checkpoint", "Draft", "Store", "steps_to_keep"]

MANIFEST_VERSION = 1
_FOLDER = re.compile(r"step-(\d{8,})$")
_FILE = re.compile(r"[a-z0-9_]+\.(safetensors|json)$")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    path: Path
    step: int
    manifest: dict[str, Any]
    sha256: str

    @property
    def facts(self) -> dict[str, Any]:
        """What the trainer stated about itself when it saved."""
        return self.manifest["facts"]


class Draft:
    """A checkpoint being written; becomes real in `commit`, vanishes in `abandon`."""

    def __init__(self, folder: Path, step: int) -> None:
        self._folder, self._step = folder, step
        self._path = folder / f".tmp-{step}-{os.getpid()}"
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir(mode=0o700)
        self._files: dict[str, dict[str, Any]] = {}

    @contextmanager
    def file(self, name: str) -> Iterator[HashedFile]:
        """A file of the checkpoint, durable and hashed when the block ends."""
        assert _FILE.match(name), name
        hashed = HashedFile(self._path / name)
        try:
            yield hashed
        except BaseException:
            hashed.close(durable=False)
            raise
        hashed.close()
        self._files[name] = {"bytes": hashed.size, "sha256": hashed.sha256}

    def commit(self, facts: dict[str, Any]) -> Checkpoint:
        """Writes the manifest and renames the folder; after this returns the checkpoint survives a power cut."""
        manifest = {"v": MANIFEST_VERSION, "step": self._step, "files": self._files, "facts": facts}
        write_json(self._path / "manifest.json", manifest)
        target = self._folder / f"step-{self._step:08d}"
        if target.exists():  # left by an earlier, damaged save of the same step
            remove_checkpoint(target)
        self._path.rename(target)
        fsync_folder(self._folder)
        return Checkpoint(target, self._step, manifest, sha256_of(target / "manifest.json"))

    def abandon(self) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


class Store:
    """The checkpoints of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[int]:
        """Steps that have a manifest, oldest first; whether it verifies is not known yet."""
        if not self.folder.is_dir():
            return []
        found = ((_FOLDER.match(path.name), path) for path in self.folder.iterdir())
        return sorted(int(match.group(1)) for match, path in found if match and (path / "manifest.json").is_file())

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def open(self, step: int) -> Checkpoint:
        """The checkpoint of a step after reading back every byte. Raises CheckpointError naming the damaged file."""
        path = self.path(step)
        try:
            manifest = read_json(path / "manifest.json")
        except DataError as error:
            raise CheckpointError(str(error)) from error
        if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
            raise CheckpointError(f"{path}/manifest.json: not a manifest.")
        if manifest.get("v") != MANIFEST_VERSION:
            raise CheckpointError(
                f"{path}: checkpoint format {manifest.get('v')}, this program reads {MANIFEST_VERSION}; "
                "update ondevice."
            )
        if manifest.get("step") != step:
            raise CheckpointError(f"{path}/manifest.json: is of step {manifest.get('step')}, not {step}.")
        for name, entry in manifest["files"].items():
            _verify_file(path, name, entry)
        return Checkpoint(path, step, manifest, sha256_of(path / "manifest.json"))

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
        """A draft that is abandoned if the block raises. A full disk becomes ResourceError; older ones stay."""
        with _full_disk_explained(self.folder):
            self.sweep()
            draft = Draft(self.folder, step)
            try:
                yield draft
            except BaseException:
                draft.abandon()
                raise

    def sweep(self) -> None:
        """Removes what an interrupted save or prune left; only for the holder of the run's lock."""
        for path in self.folder.iterdir():
            unfinished = path.name.startswith(".tmp-")
            pruned = _FOLDER.match(path.name) and not (path / "manifest.json").is_file()
            if path.is_dir() and (unfinished or pruned):
                shutil.rmtree(path, ignore_errors=True)

    def pins(self) -> dict[int, str]:
        """Steps that are never pruned, with the reason each was pinned for."""
        try:
            raw = read_json(self.folder / "pins.json")
        except DataError:
            if (self.folder / "pins.json").exists():
                raise
            return {}
        return {int(step): str(reason) for step, reason in raw["pins"].items()}

    def pin(self, step: int, reason: str | None) -> None:
        """Pins a step, or unpins it with ``None``. Raises CheckpointError where there is no such checkpoint."""
        if step not in self.steps():
            known = ", ".join(map(str, self.steps())) or "none"
            raise CheckpointError(f"{self.folder}: no checkpoint of step {step}; there are: {known}.")
        pins = {**self.pins(), step: reason}
        kept = {str(key): value for key, value in sorted(pins.items()) if value is not None}
        write_json(self.folder / "pins.json", {"v": 1, "pins": kept})

    @contextmanager
    def lease(self, step: int) -> Iterator[Checkpoint]:
        """A verified checkpoint that pruning leaves alone until the block ends."""
        try:
            fd = os.open(self.path(step) / "manifest.json", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise CheckpointError(f"{self.folder}: no checkpoint of step {step}.") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield self.open(step)
        finally:
            os.close(fd)

    def prune(self, keep: Iterable[int]) -> list[int]:
        """Removes every checkpoint not in ``keep``, oldest first, except leased ones. Gives the removed steps."""
        kept, removed = set(keep), []
        for step in self.steps():
            if step not in kept and not self._leased(step):
                remove_checkpoint(self.path(step))
                removed.append(step)
        return removed

    def _leased(self, step: int) -> bool:
        fd = os.open(self.path(step) / "manifest.json", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        finally:
            os.close(fd)


def remove_checkpoint(path: Path) -> None:
    """Deletes a checkpoint manifest-first, so that at no instant a half-deleted one looks whole."""
    with suppress(FileNotFoundError):
        (path / "manifest.json").unlink()
    fsync_folder(path)
    shutil.rmtree(path)
    fsync_folder(path.parent)


def _verify_file(path: Path, name: str, entry: Any) -> None:
    if not _FILE.match(name) or not isinstance(entry, dict):
        raise CheckpointError(f"{path}/manifest.json: names a file that no checkpoint has ({name!r}).")
    file = path / name
    try:
        if file.is_symlink() or file.stat().st_size != entry.get("bytes"):
            raise CheckpointError(f"{file}: wrong size, the file is damaged.")
        if sha256_of(file) != entry.get("sha256"):
            raise CheckpointError(f"{file}: its content changed since it was saved (hash differs).")
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror}).") from error


@contextmanager
def _full_disk_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ResourceError(
            f"{folder}: the disk is full, no checkpoint was written; free some space, older checkpoints are untouched."
        ) from error


def steps_to_keep(steps: Iterable[int], *, keep_last: int, pins: Iterable[int], best: int | None) -> set[int]:
    """Which checkpoints survive: the newest ``keep_last`` (at least two), the pinned and the best by loss."""
    ordered = sorted(steps)
    keep = set(ordered[-max(2, keep_last) :]) | (set(pins) & set(ordered))
    return keep | ({best} if best in ordered else set())
