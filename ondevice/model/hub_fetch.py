"""Fetching the files of a model, each checked against what the hub says of it before it gets its name.

What came of a file stays beside it as ``NAME.part`` when the network or the process dies, and the next try goes on
there: huggingface_hub itself throws it away. ``pull.json`` says where the files came from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from ondevice.errors import DataError, ResourceError, RunBusy, UsageError
from ondevice.model.hub import OF_THE_DISK, HubFile, Listing, endpoint, hub_errors, offline, unreachable
from ondevice.run.files import fsync_folder, make_folder, read_sealed, write_sealed

__all__ = ["PULL_FILE", "check_room", "fetch", "is_here", "missing_bytes", "note_source"]

PULL_FILE = "pull.json"
PULL_VERSION = 1
_BLOCK = 1 << 20
_PIECE = 1 << 16
_SPARE = 64 << 20  # bytes that stay free
_TRIES, _TIMEOUT_S = 5, 30.0


def is_here(file: HubFile, folder: Path) -> bool:
    """Whether the folder has the file, byte for byte."""
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size and _fits(path, file)


def missing_bytes(listing: Listing, folder: Path) -> int:
    """What is still to be fetched."""
    missing = 0
    for file in listing.files:
        if not is_here(file, folder):
            part = _part(folder, file)
            missing += max(0, file.size - (part.stat().st_size if part.exists() else 0))
    return missing


def check_room(listing: Listing, folder: Path) -> None:
    """Raises UsageError where another model lies in the folder, ResourceError where the disk is too full."""
    if (folder / PULL_FILE).exists():
        before = read_sealed(folder / PULL_FILE, version=PULL_VERSION)
        if before["repository"] != listing.repository:
            raise UsageError(f"{folder}: holds {before['repository']} already; name another folder with --to.")
    elif any((folder / file.name).exists() for file in listing.files):
        raise UsageError(f"{folder}: holds a model that was not fetched by this command; name another with --to.")
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free, need = shutil.disk_usage(there).free, missing_bytes(listing, folder) + _SPARE
    if need > free:
        raise ResourceError(
            f"{there}: {listing.repository} needs {need / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free; free some "
            "space, or name another disk with --to."
        )


def note_source(listing: Listing, folder: Path) -> None:
    """Makes the folder and writes where its files come from; those of another revision that are no more go."""
    make_folder(folder)
    if (folder / PULL_FILE).exists():
        before = read_sealed(folder / PULL_FILE, version=PULL_VERSION)
        for name in set(before["files"]) - {file.name for file in listing.files}:
            (folder / name).unlink(missing_ok=True)
    body = {
        "v": PULL_VERSION,
        "repository": listing.repository,
        "revision": listing.revision,
        "source": listing.source,
        "files": {file.name: file.size for file in listing.files},
    }
    write_sealed(folder / PULL_FILE, body)


def fetch(
    listing: Listing, file: HubFile, folder: Path, *, progress: Callable[[int], None] = lambda have: None
) -> None:
    """Puts a file into a folder that exists; one that is there already stays. ``progress`` is told the bytes there.

    Raises RunBusy where another process fetches it, DataError where it arrives damaged, DeviceError without network.
    """
    if is_here(file, folder):
        return
    part = _part(folder, file)
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with open(descriptor, "r+b", buffering=0) as target:
        try:
            fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunBusy(f"{part}: another process is fetching this file; wait for it.") from error
        _fill(listing, file, target, progress)
        target.flush()
        os.fsync(target.fileno())
        if part.stat().st_size != file.size or not _fits(part, file):
            part.unlink()
            raise DataError(f"{file.name}: arrived damaged and was deleted; repeat the command.")
        os.replace(part, folder / file.name)
    fsync_folder(folder)


def _part(folder: Path, file: HubFile) -> Path:
    """Named after the content too, so that what came of another revision is never gone on with."""
    return folder / f"{file.name}.{(file.sha256 or file.blob or 'unknown')[:12]}.part"


def _fill(listing: Listing, file: HubFile, target: BinaryIO, progress: Callable[[int], None]) -> None:
    from huggingface_hub import try_to_load_from_cache

    cached = file.cached or try_to_load_from_cache(listing.repository, file.name, revision=listing.revision)
    if isinstance(cached, str | Path):
        target.truncate(0)
        with open(cached, "rb") as source:
            shutil.copyfileobj(source, target, _BLOCK)
    elif offline():
        raise DataError(f"{file.name}: is not in the cache of huggingface_hub, and HF_HUB_OFFLINE is set.")
    else:
        _download(listing, file, target, progress)


def _download(listing: Listing, file: HubFile, target: BinaryIO, progress: Callable[[int], None]) -> None:
    """Goes on at the end of ``target``, again and again while anything comes."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(listing.repository, file.name, revision=listing.revision, endpoint=endpoint())
    headers = build_hf_headers()
    with hub_errors(listing.repository, listing.revision):
        location = get_hf_file_metadata(url, headers=headers).location
    token = headers.get("authorization") if urlsplit(location).netloc == urlsplit(url).netloc else None
    tries, trouble = 0, None
    while (have := target.seek(0, os.SEEK_END)) < file.size:
        if tries == _TRIES:
            raise unreachable(listing.repository, trouble)
        if tries:
            time.sleep(2**tries)
        try:
            _go_on(location, token, have, target, progress)
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in OF_THE_DISK:
                raise
            trouble = error
        tries = 0 if target.tell() > have else tries + 1


def _go_on(url: str, token: str | None, have: int, target: BinaryIO, progress: Callable[[int], None]) -> None:
    """Appends what comes after the first ``have`` bytes. huggingface_hub loses 10 MB where a connection breaks."""
    request = Request(url, headers={"Range": f"bytes={have}-", "Accept-Encoding": "identity"})
    if token is not None:
        request.add_unredirected_header("Authorization", token)  # it is for the hub, not for where that keeps files
    with urlopen(request, timeout=_TIMEOUT_S) as answer:
        if answer.status != 206:  # a server without ranges begins anew
            target.truncate(target.seek(0))
        while block := answer.read(_PIECE):
            target.write(block)
            progress(target.tell())


def _fits(path: Path, file: HubFile) -> bool:
    """Whether the content is what the hub says, by the hash that it gives."""
    if not (file.sha256 or file.blob):
        return True
    whole = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with open(path, "rb") as content:
        while block := content.read(_BLOCK):
            whole.update(block)
    return whole.hexdigest() == (file.sha256 or file.blob)
