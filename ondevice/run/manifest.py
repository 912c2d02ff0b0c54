"""What a checkpoint's manifest says and whether its files are as it says: reading and verifying, never writing.

The manifest is a sealed file with the size and hash of every other file. A checkpoint that lost its optimizer state
on purpose (a light one) lists it under ``dropped``; its identity is the hash of the manifest without that key.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ondevice.errors import CheckpointError, DataError
from ondevice.run.files import open_regular, read_sealed, sealed_bytes, sha256_of_open

__all__ = ["DROPPABLE", "FILE_NAME", "MANIFEST", "MANIFEST_VERSION", "Checkpoint", "read_manifest", "verify_files"]

MANIFEST = "manifest.json"
MANIFEST_VERSION = 1
DROPPABLE = ("optimizer.safetensors",)  # what only training needs
FILE_NAME = re.compile(r"(?!manifest\.json)[a-z0-9_]{1,64}\.(safetensors|json)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint. ``sha256`` is its manifest's hash as committed and so stands for every byte of it."""

    path: Path
    step: int
    manifest: dict[str, Any]
    sha256: str

    @property
    def facts(self) -> dict[str, Any]:
        """What the trainer stated about itself when it saved."""
        facts: dict[str, Any] = self.manifest["facts"]
        return facts

    @property
    def dropped(self) -> tuple[str, ...]:
        """Files that were taken away on purpose."""
        return tuple(self.manifest.get("dropped", ()))

    @property
    def complete(self) -> bool:
        """Whether training can go on from it; a light one can only be read."""
        return not self.dropped

    @property
    def files(self) -> dict[str, Any]:
        """Name -> ``bytes`` and ``sha256`` of the files that are there."""
        return {name: entry for name, entry in self.manifest["files"].items() if name not in self.dropped}


def read_manifest(path: Path, step: int) -> Checkpoint:
    """The checkpoint in a folder as its manifest describes it; its files are not looked at. Raises CheckpointError."""
    if os.path.islink(path):
        raise CheckpointError(f"{path}: is a symbolic link; a checkpoint must lie inside its run.")
    try:
        manifest = read_sealed(path / MANIFEST, version=MANIFEST_VERSION)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    files, dropped = manifest.get("files"), manifest.get("dropped", list(DROPPABLE))
    if not isinstance(files, dict) or not isinstance(manifest.get("facts"), dict) or dropped != list(DROPPABLE):
        raise CheckpointError(f"{path / MANIFEST}: not a manifest.")
    if manifest.get("step") != step:
        raise CheckpointError(f"{path / MANIFEST}: is of step {manifest.get('step')}, not {step}.")
    for name, entry in files.items():
        if not FILE_NAME.fullmatch(name) or not isinstance(entry, dict):
            raise CheckpointError(f"{path / MANIFEST}: names a file that no checkpoint has ({name!r}).")
    committed = {key: value for key, value in manifest.items() if key != "dropped"}
    return Checkpoint(path, step, manifest, hashlib.sha256(sealed_bytes(committed)).hexdigest())


def verify_files(checkpoint: Checkpoint, *, from_disk: bool = False) -> None:
    """Reads back every byte. Raises CheckpointError naming the damaged file.

    ``from_disk`` asks the system to forget its own copy first, so that what was written is read, not what was meant.
    """
    for name, entry in checkpoint.files.items():
        file = checkpoint.path / name
        try:
            with open_regular(file) as opened:
                if os.fstat(opened.fileno()).st_size != entry.get("bytes"):
                    raise CheckpointError(f"{file}: wrong size, the file is damaged.")
                if from_disk:
                    _forget(opened)
                if sha256_of_open(opened) != entry.get("sha256"):
                    raise CheckpointError(f"{file}: its content changed since it was saved (hash differs).")
        except OSError as error:
            raise CheckpointError(f"{file}: cannot be read ({error.strerror}).") from error


def _forget(file: BinaryIO) -> None:
    with suppress(AttributeError, OSError):  # macOS has no such call
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
