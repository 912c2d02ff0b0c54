"""The checkpoint store: a checkpoint exists if and only if its manifest verifies.

Committed by the trainer: files are written in full and fsynced in ``.tmp-<step>-<pid>``, the sealed manifest with
their hashes last, then the folder is renamed and its parent fsynced. Pruned manifest-first; lightened by replacing the
manifest before the optimizer state goes. Bytes and hashes only; what is inside the files is the business of
``ondevice.train.checkpoint``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ondevice.errors import CheckpointError, DataError, OndeviceError, ResourceError
from ondevice.run.files import (
    HashedFile,
    fsync_folder,
    is_gone,
    read_sealed,
    remove_temporary,
    sealed_bytes,
    write_sealed,
)
from ondevice.run.manifest import (
    DROPPABLE,
    FILE_NAME,
    MANIFEST,
    MANIFEST_VERSION,
    Checkpoint,
    read_manifest,
    verify_files,
)

__all__ = ["MANIFEST_VERSION", "PINS_VERSION", "Checkpoint", "Draft", "Store"]

PINS_VERSION = 1
_FOR_LOCK = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = re.compile(r"step-([0-9]{8,18})")


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
        assert FILE_NAME.fullmatch(name), name
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

        An intact, complete checkpoint of the same step is given back instead: it is never deleted for its successor.
        """
        target = self._store.path(self._step)
        if os.path.lexists(target):
            with suppress(CheckpointError):
                existing = self._store.open(self._step)
                if existing.complete:
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
        file = HashedFile(self._path / MANIFEST)
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
    """The checkpoints of one run.

    ``changing`` is held while anything but a new checkpoint changes in the folder: one thread of the trainer may save
    while another pins.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changing = threading.RLock()

    def steps(self) -> list[int]:
        """Steps that have a manifest, oldest first; whether it verifies is not known yet. Raises CheckpointError."""
        found = [(_step_of(path), path) for path in self._entries()]
        return sorted(step for step, path in found if step is not None and os.path.isfile(path / MANIFEST))

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

    def peek(self, step: int) -> Checkpoint:
        """What the manifest of a step says, its files unread. Raises CheckpointError."""
        return read_manifest(self.path(step), step)

    def open(self, step: int, *, from_disk: bool = False) -> Checkpoint:
        """The checkpoint of a step after reading back every byte. Raises CheckpointError naming the damaged file.

        ``from_disk``: as far as possible from the disk itself, for one that was just written.
        """
        checkpoint = self.peek(step)
        verify_files(checkpoint, from_disk=from_disk)
        return checkpoint

    def complete_steps(self) -> list[int]:
        """Steps that training could go on from if their bytes are sound (they are not read), oldest first."""
        found = []
        for step in self.steps():
            with suppress(CheckpointError, OSError):
                checkpoint = self.peek(step)
                sizes = {name: os.lstat(checkpoint.path / name).st_size for name in checkpoint.files}
                if checkpoint.complete and all(sizes[name] == e.get("bytes") for name, e in checkpoint.files.items()):
                    found.append(step)
        return found

    def latest(self, *, complete: bool = False) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that verifies, and one sentence for each newer one that does not.

        With ``complete`` light ones are passed over; where nothing else is left, a sentence each says so.
        """
        damage: list[str] = []
        light: list[str] = []
        for step in reversed(self.steps()):
            try:
                checkpoint = self.peek(step)
                if complete and not checkpoint.complete:
                    light.append(f"{checkpoint.path}: has no optimizer state, training cannot go on from it.")
                    continue
                verify_files(checkpoint)
                return checkpoint, damage
            except CheckpointError as error:
                damage.append(str(error))
        return None, damage + light

    @contextmanager
    def draft(self, step: int) -> Iterator[Draft]:
        """A draft that is abandoned unless the block commits it.

        A full disk or a failed write becomes ResourceError; older checkpoints stay as they are.
        """
        with _failure_explained(self.folder):
            self._make_folder()
            self.sweep()
            draft = Draft(self, step)
            try:
                yield draft
            finally:
                draft.abandon()

    def _make_folder(self) -> None:
        """Makes no parents: a run that was moved or deleted this instant must not come back as half a run."""
        if not self.folder.exists():
            self.folder.mkdir(mode=0o700, exist_ok=True)
            fsync_folder(self.folder.parent)

    def sweep(self) -> None:
        """Finishes or removes what an interrupted save, prune or lightening left; only for the holder of the lock."""
        with self.changing:
            for path in self._entries():
                unfinished = path.name.startswith(".tmp-")
                pruned = _FOLDER.fullmatch(path.name) and is_gone(path / MANIFEST)
                if unfinished or pruned:
                    shutil.rmtree(path, ignore_errors=True)
                elif (step := _step_of(path)) is not None:
                    self._finish_lightening(step)
            remove_temporary(self.folder)

    def _finish_lightening(self, step: int) -> None:
        path = self.path(step)
        remove_temporary(path)
        if any(os.path.lexists(path / name) for name in DROPPABLE):
            with suppress(CheckpointError, OSError):
                _remove_dropped(self.peek(step))

    def pins(self) -> dict[int, str]:
        """Steps that are never pruned, with the reason each was pinned for.

        Raises CheckpointError when they cannot be known, so that nothing is pruned by mistake.
        """
        path = self.folder / "pins.json"
        if is_gone(path):
            return {}
        try:
            raw = read_sealed(path, version=PINS_VERSION)
            return {int(step): str(reason) for step, reason in raw["pins"].items()}
        except (DataError, AttributeError, KeyError, ValueError) as error:
            reason = str(error) if isinstance(error, DataError) else f"{path}: not a list of pins."
            raise CheckpointError(f"{reason} Restore it from a copy, or delete it to unpin every step.") from error

    def pin(self, step: int, reason: str | None, *, after: Mapping[str, Any] | None = None) -> None:
        """Pins a step, or unpins it with ``None``. ``after`` is as for `ondevice.run.config.write_limits`.

        Raises CheckpointError where there is no such checkpoint, ResourceError on a full disk.
        """
        with self.changing:
            pins: dict[int, str | None] = {**self.pins()}
            if step not in self.steps() and not (reason is None and step in pins):
                known = ", ".join(map(str, self.steps())) or "none"
                raise CheckpointError(f"{self.folder}: no checkpoint of step {step}; there are: {known}.")
            pins[step] = reason
            kept = {str(key): value for key, value in sorted(pins.items()) if value is not None}
            body = {"v": PINS_VERSION, "pins": kept}
            write_sealed(self.folder / "pins.json", body if after is None else {**body, "after": dict(after)})

    @contextmanager
    def lease(self, step: int) -> Iterator[Checkpoint]:
        """A verified checkpoint that nothing removes or lightens until the block ends. Raises CheckpointError."""
        fd = self._lock_shared(step)
        try:
            yield self.open(step)  # fails where pruning was faster than the lock
        finally:
            os.close(fd)

    def _lock_shared(self, step: int) -> int:
        """The locked manifest, which is still the manifest of the step after the wait for the lock."""
        path = self.path(step)
        while True:
            try:
                fd = os.open(path / MANIFEST, _FOR_LOCK)
            except OSError as error:
                raise CheckpointError(f"{self.folder}: no checkpoint of step {step}.") from error
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
            except OSError as error:
                os.close(fd)
                raise CheckpointError(f"{path}: cannot be locked for reading ({error.strerror}).") from error
            if _leads_to(path / MANIFEST, fd) or not os.path.lexists(path / MANIFEST):
                return fd
            os.close(fd)  # it was lightened meanwhile

    def prune(self, keep: Iterable[int]) -> list[int]:
        """Removes every checkpoint not in ``keep``, oldest first, except leased ones. Gives the removed steps.

        One that the system will not delete now is left for the next time.
        """
        kept = set(keep)
        with self.changing:
            return [step for step in self.steps() if step not in kept and self._remove_unleased(step)]

    def _remove_unleased(self, step: int) -> bool:
        """Deletes while holding the manifest's lock, so that no lease begins on a checkpoint that is going."""
        try:
            with self._alone(step):
                remove_checkpoint(self.path(step))
        except OSError:
            return is_gone(self.path(step) / MANIFEST)
        return True

    def lighten(self, step: int) -> bool:
        """Takes the optimizer state away from an older checkpoint; its identity stays. Gives whether it is light now.

        Leased ones and those the system will not change now are left. Raises CheckpointError for a damaged manifest
        and for one of the newest two complete checkpoints.
        """
        with self.changing:
            checkpoint = self.peek(step)
            if sum(newer > step for newer in self.complete_steps()) < 2:
                raise CheckpointError(f"{checkpoint.path}: fewer than two newer ones are complete; it must stay whole.")
            if not set(DROPPABLE) <= set(checkpoint.manifest["files"]):
                return False
            with suppress(OSError, OndeviceError), self._alone(step):
                if checkpoint.complete:
                    write_sealed(checkpoint.path / MANIFEST, {**checkpoint.manifest, "dropped": list(DROPPABLE)})
                _remove_dropped(self.peek(step))
            return not self.peek(step).complete

    @contextmanager
    def _alone(self, step: int) -> Iterator[None]:
        """The manifest's lock against leases. Raises OSError where it is leased or gone."""
        fd = os.open(self.path(step) / MANIFEST, _FOR_LOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(fd)


def remove_checkpoint(path: Path) -> None:
    """Deletes a checkpoint manifest-first, so that at no instant a half-deleted one looks whole. Raises OSError."""
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        (path / MANIFEST).unlink(missing_ok=True)
        fsync_folder(path)
        shutil.rmtree(path)
    fsync_folder(path.parent)


def _step_of(path: Path) -> int | None:
    """The step a folder is named for; None for other names, links, and names that we would write differently."""
    match = _FOLDER.fullmatch(path.name)
    if match is None or os.path.islink(path) or path.name != f"step-{int(match[1]):08d}":
        return None
    return int(match[1])


def _leads_to(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except OSError:
        return False


def _remove_dropped(checkpoint: Checkpoint) -> None:
    """Deletes files that the manifest no longer counts on. Raises OSError."""
    left = [checkpoint.path / name for name in checkpoint.dropped if os.path.lexists(checkpoint.path / name)]
    for path in left:
        path.unlink()
    if left:
        fsync_folder(checkpoint.path)


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
